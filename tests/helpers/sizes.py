"""Constants that every test process reads: a module without imports of the project."""

import os

SAMPLE_SCALE = 0.1
"""Scale of the embedded sample that the tests train on."""
THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
"""Threads of torch in a test: toys are too small to split, and threads that wait take time."""
