#!/usr/bin/env bash
# What docs/results/tspt.md added to its study: real text, facts, a pretrained start. Run again, it continues.
#   bash experiments/studies/tspt/later.sh facts
#   bash experiments/studies/tspt/later.sh real CORPUS OUT
#   bash experiments/studies/tspt/later.sh pretrained CORPUS OUT MODEL.gguf
# CORPUS holds general_en, general_zh, geo_en and geo_zh as .jsonl.zst. SEEDS from outside, as in
# experiments/studies/tspt/study.sh.
set -euo pipefail
seeds=${SEEDS:-0,1,2}
sets=(general_en general_zh geo_en geo_zh)

train() {  # folder of runs, overrides
    python train.py -m +experiment=tspt_study runs_folder="$1" seed="$seeds" "${@:2}"
}
prepare() {  # corpus, tokenizer, folder
    local folders=()
    for name in "${sets[@]}"; do
        [ -f "$3/$name/manifest.json" ] || python -m scripts.prepare_data name="$name" \
            inputs="[$1/$name.jsonl.zst]" tokenizer="$2" out="$3/$name" held_out_fraction=0.04
        folders+=("$3/$name")
    done
    local IFS=,
    python -m scripts.check_sources sources="[${folders[*]}]" tokenizer="$2"
}

case $1 in
facts)
    runs=runs/tspt_facts
    # Both sources are read once when they are mixed by their sizes.
    options=(curriculum.scale=1 evaluation.every=400 "data.domain={geo_en: 0.4, geo_zh: 0.6}")
    stages=(curriculum.stages.adaptation.tokens=2_640_000
        curriculum.stages.specialization.tokens=2_950_000)
    train $runs arm=base "${options[@]}"
    train $runs arm=s1_only,tspt,tspt_rate45,one_stage "${options[@]}" "${stages[@]}"
    train $runs arm=s2_only "${options[@]}" curriculum.stages.specialization.tokens=2_420_000
    python -m scripts.measure runs=$runs probes=true max_bytes=100_000
    ;;
real)
    corpus=$2 out=$3 runs=runs/tspt_real
    # 0.02, as it was: of the 4 % held out below, half were learnt from. All arms share the pieces.
    [ -d "$out/en4096" ] || python -m experiments.studies.vocabulary.english_tokenizer "$corpus" "$out/en4096" 0.02
    prepare "$corpus" "$out/en4096" "$out/prepared"
    train $runs arm=base,s1_only,tspt,one_stage,s2_only,tspt_single curriculum.scale=1 \
        data=bilingual data.root="$out/prepared" data.tokenizer="$out/en4096" \
        data.vocab_size=4096 evaluation.every=178 evaluation.max_bytes=20_000
    python -m scripts.measure runs=$runs max_bytes=150_000
    ;;
pretrained)
    corpus=$2 out=$3 runs=runs/tspt_pretrained
    [ -d "$out/model" ] || python -m experiments.studies.tspt.pretrained_start "$4" "$out/model"
    prepare "$corpus" "$out/model" "$out/prepared"
    options=(data=bilingual data.root="$out/prepared" data.tokenizer="$out/model"
        data.vocab_size=49152 parallel.dtype=bfloat16 optim.lr=3e-4
        batch.row_length=1024 batch.micro_batch_rows=2
        evaluation.every=100_000 evaluation.max_bytes=40_000 evaluation.chunk_bytes=1000)
    train $runs arm=base model=pretrained init_from="$out/model" "${options[@]}" \
        curriculum.scale=1 curriculum.stages.pretraining.tokens=60_000
    train $runs arm=s1_only,tspt,one_stage,s2_only curriculum.scale=0.08 "${options[@]}"
    python -m scripts.measure runs=$runs max_bytes=20_000
    ;;
*)
    echo "$1: one of facts, real, pretrained" >&2
    exit 2
    ;;
esac
