"""Chance in the tests: none in the default run, drawn inputs where they are asked for.

`pytest` draws the same inputs of property tests in every run and on every machine, and seeds each
test and each fixture. `pytest -m hypothesis --hypothesis-profile=explore` draws other inputs in
every run, and more of them; the slow tier contains this command (`tests/unit/test_draws.py`).
"""

import random

import numpy as np
import torch
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

from tests.helpers.sizes import THREADS

EXPLORE = "explore"
_MORE = 20
"""As many times more inputs are drawn by `EXPLORE`."""


def register_profiles() -> None:
    """Profiles of hypothesis; to be called before any property test is imported."""
    # No limits of time, which a busy machine would not keep.
    options = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("fixed", derandomize=True, database=None, **options)
    settings.register_profile(EXPLORE, print_blob=True, max_examples=100 * _MORE, **options)
    settings.load_profile("fixed")
    # Without a public switch: hypothesis also draws constants of the modules that are imported,
    # which depend on the tests that have run before, and on every edit of the code.
    nothing = providers.Constants()
    providers._get_local_constants = lambda: nothing  # pyright: ignore


def examples(count: int, **options) -> settings:
    """How many inputs a property test draws: `count`, and by `EXPLORE` more."""
    more = _MORE if settings.get_current_profile_name() == EXPLORE else 1
    return settings(max_examples=count * more, **options)


def start_alike() -> None:
    """Seed what a test may draw from, and undo what a run has made of the number of threads."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 for code that draws from it
    torch.default_generator.manual_seed(0)
    torch.set_num_threads(THREADS)
