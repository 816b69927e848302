#!/usr/bin/env bash
# First contact with a CUDA device: the suite of benchmarks (it continues where it was interrupted;
# the table goes to stdout), then one toy run through the whole of train.py.
set -uo pipefail
cd "$(dirname "$0")/../.."
python -m experiments.benchmarks suite=gpu
python train.py +experiment=tspt_stage1 device=cuda name=gpu_check
