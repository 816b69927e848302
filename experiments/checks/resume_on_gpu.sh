#!/usr/bin/env bash
# Whether a run that is killed on a CUDA device goes on to the same bits: the toy with heads as wide
# as flash-attn-4 wants them, compiled, killed with signal 9 once a checkpoint of step 100 is there.
#   bash experiments/checks/resume_on_gpu.sh OUT [device=cpu]        # three minutes on an H200, two on a laptop
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$1
shift
arguments=(+experiment=tspt_stage1 device=cuda parallel.deterministic=true parallel.compile=true
    model.head_dim=128 runs_folder="$out" checkpoint.every=20 evaluation.every=1000 logging.every=1 "$@")
python train.py "${arguments[@]}" name=alone
python train.py "${arguments[@]}" name=killed &
process=$!
until ls "$out"/killed/checkpoints 2>/dev/null | grep -q 100; do
    kill -0 $process  # it has ended by itself: so does this
    sleep 0.05
done
kill -9 $process
wait $process || true
python train.py "${arguments[@]}" name=killed
cmp "$out"/alone/model/model.safetensors "$out"/killed/model/model.safetensors
python - "$out" <<'PYTHON'
import json, sys
from pathlib import Path

TIMES = ("seconds", "tokens_per_second", "mfu", "mfu_palm", "mfu_customary")
runs = []
for name in ("alone", "killed"):
    lines = map(json.loads, (Path(sys.argv[1]) / name / "metrics.jsonl").read_text().splitlines())
    runs.append([{k: v for k, v in line.items() if k not in TIMES} for line in lines])
assert runs[0] == runs[1], "the runs differ"
print(f"the same final weights, and the same {len(runs[0])} lines of metrics but for times")
PYTHON
