#!/usr/bin/env bash
# The study of docs/results/vocabulary.md: initialisation of new rows, three seeds, against no growth.
# The controls mean, noisy_mean, random and similar were removed after commit 9d2f834.
#   bash experiments/studies/vocabulary/study.sh CORPUS OUT
# CORPUS holds general_en, general_zh, geo_en and geo_zh as .jsonl.zst. One to two hours on two cores.
set -euo pipefail
corpus=$1 out=$2

python -m experiments.studies.vocabulary.english_tokenizer "$corpus" "$out/en4096" 0.01

prepare() {  # tokenizer, folder
    for name in general_en general_zh geo_en geo_zh; do
        python -m scripts.prepare_data name=$name inputs="[$corpus/$name.jsonl.zst]" \
            tokenizer="$1" out="$2/$name"
    done
}
common="data=bilingual runs_folder=$out/runs evaluation.every=1000 evaluation.max_bytes=50000
    checkpoint.every=1000"
continued="$common optim.lr=1e-3 schedule.warmup_fraction=0.05"

prepare "$out/en4096" "$out/old"
for seed in 0 1 2; do
    python train.py +experiment=tspt_stage1 $common data.root="$out/old" \
        data.tokenizer="$out/en4096" data.vocab_size=4096 \
        "data.general={general_en: 0.8, general_zh: 0.0}" \
        curriculum.stages.adaptation.tokens=1_600_000 seed=$seed name=base-$seed
    python train.py +experiment=tspt_stage1 $continued data.root="$out/old" \
        data.tokenizer="$out/en4096" model=pretrained init_from="$out/runs/base-$seed" \
        "data.general={general_en: 0.132, general_zh: 0.868}" batch.tokens_per_step=4096 \
        curriculum.stages.adaptation.tokens=892_928 seed=$((seed + 10)) name=none-$seed
    for init in mean_subtoken first_subtoken eeve; do
        grown="$out/grown/$init-$seed"
        python -m scripts.expand_tokenizer base="$out/runs/base-$seed" root="$corpus" \
            corpus='[general_zh, geo_zh]' target_vocab_size=8192 byte_budget=8_000_000 \
            loss_bytes=0 init=$init out="$grown"
        # The pieces do not depend on the weights: one preparation serves all.
        [ -d "$out/new" ] || prepare "$grown" "$out/new"
        grown_run="$continued data.root=$out/new data.tokenizer=$grown init_from=$grown
            batch.tokens_per_step=1792 seed=$((seed + 10))"
        mixture="data.general={general_en: 0.286, general_zh: 0.714}"
        python train.py +experiment=tspt_stage1 $grown_run model=pretrained "$mixture" \
            curriculum.stages.adaptation.tokens=410_368 name=$init-$seed
        if [ $init = mean_subtoken ]; then
            python train.py +experiment=tspt_stage1_grown $grown_run "$mixture" \
                curriculum.stages.new_rows.tokens=39_424 \
                curriculum.stages.embeddings.tokens=39_424 \
                curriculum.stages.adaptation.tokens=331_520 name=thawed-$seed
        fi
    done
done
