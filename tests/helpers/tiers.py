"""Tiers of tests: the folder of a test sets its mark.

A folder named unit holds the fast tier, which has no mark; a test in distributed/ or e2e/ is marked
with the name of that folder. Nobody writes these marks by hand. A slow test gets no mark of a tier,
so that `-m "distributed or e2e"` leaves slow tests out.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIERS = ("distributed", "e2e")
LONGEST = (
    *("e2e/training/test_readme.py", "e2e/training/test_train.py", "e2e/resume/test_resume.py"),
    *("e2e/resume/test_verify.py", "e2e/data/test_prepare.py", "e2e/data/test_append.py"),
    *("distributed/test_checkpoint.py", "distributed/test_train_lora.py"),
    *("distributed/test_freeze.py", "e2e/resume/test_resume_settings.py"),
)
_MARKED = pytest.StashKey[bool]()


def folder_of(item: pytest.Item) -> str:
    """The folder that sets the tier of a test: unit, distributed or e2e.

    Raises:
        UsageError: the test is in none of these folders.
    """
    for part in item.path.relative_to(ROOT).parts:
        if part in ("unit", *TIERS):
            return part
    raise pytest.UsageError(f"{item.nodeid}: move the test below unit/, distributed/ or e2e/")


def mark_tiers(items: Iterable[pytest.Item]) -> None:
    """Mark tests by their folder.

    Raises:
        UsageError: the mark of a tier is written in a test file.
    """
    for item in items:
        if item.stash.get(_MARKED, False):
            continue
        item.stash[_MARKED] = True
        for tier in TIERS:
            if item.get_closest_marker(tier) is not None:
                raise pytest.UsageError(
                    f"{item.nodeid}: remove the mark {tier}; the folder of a test sets its tier"
                )
        folder = folder_of(item)
        if folder in TIERS and item.get_closest_marker("slow") is None:
            item.add_marker(folder)


def is_long(item: pytest.Item) -> bool:
    """Decide if the file of a test is among those that take longest."""
    return item.path.as_posix().endswith(LONGEST)
