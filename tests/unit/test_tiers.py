"""The tiers of the tests: what a folder means, and what the fast tier refuses."""

import multiprocessing
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch.distributed as dist

import train
from tests.helpers.tiers import TIERS, folder_of, mark_tiers

WAYS = {
    "process": lambda: subprocess.run([sys.executable, "-c", ""], check=False),
    "fork": lambda: multiprocessing.get_context("spawn").Process(target=print).start(),
    "group": lambda: dist.init_process_group("gloo", rank=0, world_size=2),
    "launcher": lambda: dist.init_process_group("gloo"),
    "run": lambda: train.train(SimpleNamespace(device="cpu")),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_unit_test_that_leaves_its_process_fails(way):
    with pytest.raises(AssertionError, match="move the test to tests/distributed/ or tests/e2e/"):
        WAYS[way]()


def test_the_folder_sets_the_mark(request):
    items = request.session.items
    assert items
    for item in items:
        marks = {mark for mark in TIERS if item.get_closest_marker(mark)}
        slow = item.get_closest_marker("slow") is not None
        assert marks == ({folder_of(item)} & set(TIERS) if not slow else set()), item.nodeid


@pytest.mark.parametrize(
    ("folder", "mark", "found"),
    [
        ("unit", "", set()),
        ("e2e", "", {"e2e"}),
        ("distributed", "", {"distributed"}),
        ("e2e", "slow", {"slow"}),
        ("unit", "gpu", {"gpu"}),
    ],
)
def test_marks_of_a_folder(request, folder, mark, found):
    item = item_in(request, folder, mark)
    mark_tiers([item])
    mark_tiers([item])
    assert {one.name for one in item.iter_markers()} - {"parametrize"} == found


def test_a_mark_of_a_tier_is_not_written_by_hand(request):
    with pytest.raises(pytest.UsageError, match="remove the mark e2e; the folder of a test sets"):
        mark_tiers([item_in(request, "e2e", "e2e")])
    with pytest.raises(pytest.UsageError, match="move the test below unit/, distributed/ or e2e/"):
        mark_tiers([item_in(request, "other", "")])


def item_in(request, folder, mark):
    """A test with a mark, as if its file were in tests/`folder`."""
    module = pytest.Module.from_parent(
        request.session, path=request.config.rootpath / "tests" / folder / "test_x.py"
    )
    item = pytest.Function.from_parent(module, name="test_x", callobj=lambda: None)
    if mark:
        item.add_marker(mark)
    return item
