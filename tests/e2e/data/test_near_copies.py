"""Near copies are found by any number of workers."""

from tests.unit.data.prepare.test_near_copies import (  # noqa: F401 fixtures
    changed,
    long_texts,
    make,
    run,
    tokenizer_path,
)
from tests.unit.data.prepare.test_prepare import contents, json_lines


def test_workers_do_not_show(make, tmp_path):
    texts = long_texts(100)
    make([*texts, *map(changed, texts)])
    (tmp_path / "avoid.jsonl").write_bytes(json_lines(texts[:50]))
    avoid = [str(tmp_path / "avoid.jsonl")]
    for workers in (1, 2):
        run(make(workers=workers, decontaminate_against=avoid, out=str(tmp_path / str(workers))))
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    assert not list(tmp_path.glob("?/*index.tmp"))
    assert not list(tmp_path.glob("?/near_copies*"))
