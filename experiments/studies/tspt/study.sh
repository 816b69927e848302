#!/usr/bin/env bash
# The study of docs/results/tspt.md, whole: bases, growth, preparation, arms, measuring, report.
#   bash experiments/studies/tspt/study.sh [override of every training run ...]
# Run again, it continues: every step passes over what is finished. The variables below may be set
# from outside. A look at the mechanism, which shows nothing else:
#   RUNS=runs/tiny SAMPLE=prepared/tiny SCALE=0.1 SEEDS=0,1 FEW=0 REPORT=tiny \
#       bash experiments/studies/tspt/study.sh curriculum.scale=0.004
set -euo pipefail
runs=${RUNS:-runs/tspt_study}      # folder of run folders
sample=${SAMPLE:-prepared/sample}  # the embedded sample; ${sample}_grown: under the grown tokenizer
scale=${SCALE:-1.0}                # of the sample
seeds=${SEEDS:-0,1,2,3,4,5}        # of the base and the core arms
few=${FEW:-0,1,2}                  # of the other arms, some of the former
report=${REPORT:-report}

core=s1_only,tspt,one_stage,s2_only,tspt_single,tspt_rate45
others=replay_00,replay_06,replay_50,one_stage_10,one_stage_40,one_stage_70,reversed,tspt_kept
grown=grown_s1,grown_tspt,grown_one_stage  # those that others start from come first
sources=(general_en general_zh arithmetic geo_en geo_zh)

join() {  # the arguments, with commas between them
    local IFS=,
    echo "$*"
}
train() {
    python train.py -m +experiment=tspt_study runs_folder="$runs" "$@"
}
on_sample=(data.root="$sample" data.tokenizer="$sample/tokenizer" data.sample_scale="$scale")
on_grown=(data.root="${sample}_grown" data.tokenizer="${sample}_grown/tokenizer")

train arm=base seed="$seeds" "${on_sample[@]}" "$@"

for seed in ${few//,/ }; do
    [ -d "$runs/grown-s$seed" ] || python -m scripts.expand_tokenizer base="$runs/base-s$seed" \
        root="$sample/corpus" corpus='[general_zh,geo_zh]' target_vocab_size=4096 loss_bytes=0 \
        out="$runs/grown-s$seed"
done

# The pieces do not depend on the weights: the first seed's tokenizer is that of all.
mkdir -p "${sample}_grown/tokenizer"
cp "$runs/grown-s${few%%,*}"/tokenizer* "${sample}_grown/tokenizer"
for name in "${sources[@]}"; do
    # As the sample itself was prepared: none may hold what another one holds out.
    others_held_out=()
    for other in "${sources[@]}"; do
        [ "$other" = "$name" ] || others_held_out+=("$sample/corpus/held_out/$other.jsonl")
    done
    [ -f "${sample}_grown/$name/manifest.json" ] || python -m scripts.prepare_data name="$name" \
        inputs="[$sample/corpus/$name.jsonl]" tokenizer="${sample}_grown/tokenizer" \
        held_out_fraction=0.02 decontaminate_against="[$(join "${others_held_out[@]}")]" \
        out="${sample}_grown/$name"
done
python -m scripts.check_sources tokenizer="${sample}_grown/tokenizer" \
    sources="[$(join "${sources[@]/#/${sample}_grown/}")]"

train seed="$seeds" arm="$core" "${on_sample[@]}" "$@"
train seed="$few" arm="$others" "${on_sample[@]}" "$@"
train seed="$few" arm="$grown" "${on_grown[@]}" "$@"

python -m scripts.measure runs="$runs"

arm_seeds=() grown_from=() mixtures=one_stage_10,one_stage,one_stage_40,one_stage_70
for arm in ${others//,/ } ${grown//,/ }; do arm_seeds+=("$arm:[$few]"); done
for seed in ${few//,/ }; do grown_from+=("grown-s$seed:base-s$seed"); done
python -m scripts.report runs="$runs" out="$report" arm_seeds="{$(join "${arm_seeds[@]}")}" \
    grown_from="{$(join "${grown_from[@]}")}" \
    curves="[[$mixtures],[replay_00,replay_06,tspt,replay_50]]"
python -m experiments.studies.tspt.contrasts "$runs"
