"""The default run draws the same inputs each time; other inputs are drawn where they are wanted."""

import importlib
import json
import random
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.draws import EXPLORE, examples
from tests.helpers.sizes import THREADS


def draw():
    """Inputs of a property test, constants of imported modules among them if there are any."""
    found = []

    @examples(200)
    @given(st.integers(), st.text(max_size=20), st.floats())
    def collect(number, text, value):
        found.append([number, text, value])

    collect()
    return json.dumps(found)


def test_what_is_drawn_depends_on_no_module_that_other_tests_import(tmp_path, monkeypatch):
    if settings.get_current_profile_name() == EXPLORE:
        pytest.skip("other inputs were asked for")
    first = draw()
    assert draw() == first
    constants = [f"{number} constant" for number in range(100)]
    (tmp_path / "imported_now.py").write_text(f"CONSTANTS = {constants}, {list(range(100, 999))}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "imported_now", importlib.import_module("imported_now"))
    assert draw() == first


@pytest.mark.parametrize("threads", [3, 5])
def test_a_run_in_another_test_leaves_the_number_of_threads_as_it_was(threads):
    assert torch.get_num_threads() == THREADS
    torch.set_num_threads(threads)


def test_a_test_without_a_generator_of_its_own_is_seeded():
    assert random.random() == random.Random(0).random()
    assert np.random.rand() == np.random.RandomState(0).rand()  # noqa: NPY002
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0)))
