"""Overlaps are found by any number of workers."""

from data.prepare.check_overlap import (
    NOTES,
)
from tests.unit.data.prepare.test_apart import (  # noqa: F401 fixtures
    ONE,
    OTHERS,
    check,
    held_out_of,
    make,
    tokenizer,
)
from tests.unit.data.prepare.test_near_copies import changed


def test_workers_do_not_show(make, tokenizer):
    near = [changed(text) for text in held_out_of(ONE)]
    one, two = make("one", ONE), make("two", [*near, *OTHERS])
    alone = check(tokenizer, one, two)
    (two / NOTES).unlink()
    assert check(tokenizer, one, two, workers=2) == alone
    assert alone["two", "one"] == list(range(len(near)))
