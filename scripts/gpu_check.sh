#!/usr/bin/env bash
# First contact with a CUDA device, under ten minutes: each backend's error against the fp64
# reference and its tokens/s, one toy run, one step with the layers of Mistral-7B.
# LAYERS=32 needs about 115 GiB; 8 fits 80 GiB. Prints one JSON object per line.
set -uo pipefail
cd "$(dirname "$0")/.."
layers=${LAYERS:-8}
for backend in flash flex banded; do
    python -m scripts.benchmark device=cuda parallel.attention=$backend parallel.compile=true
    python -m scripts.benchmark device=cuda parallel.attention=$backend model=mistral_7b \
        model.num_hidden_layers="$layers" batch.row_length=8192 batch.micro_batch_rows=1 \
        batch.tokens_per_step=8192
done
python docs/benchmark_kernels.py
python train.py +experiment=tspt_stage1 device=cuda name=gpu_check
