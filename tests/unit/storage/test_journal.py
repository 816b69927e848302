import json

import pytest

from storage.journal import append_lines, check_settings, cut_lines, open_journal, settings_file
from storage.lock import locked, only_writer

SETTINGS = {"shots": 5, "task": "toy"}


def test_a_journal_is_created_appended_to_and_continued(tmp_path):
    file = tmp_path / "toy.jsonl"
    assert open_journal(file, SETTINGS) == []
    assert json.loads(settings_file(file).read_text()) == SETTINGS
    append_lines(file, [{"answer": "岩石"}, {"answer": 2}])
    append_lines(file, [])
    assert list(map(json.loads, open_journal(file, SETTINGS))) == [
        {"answer": "岩石"},
        {"answer": 2},
    ]
    assert "岩石" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("torn", [b"{", b'{"answer": 3}', b"\xe5\xb2"])
def test_a_torn_last_line_is_cut_off(tmp_path, torn):
    file = tmp_path / "toy.jsonl"
    open_journal(file, SETTINGS)
    append_lines(file, [1, 2])
    whole = file.read_bytes()
    file.write_bytes(whole + torn)
    assert open_journal(file, SETTINGS) == [b"1\n", b"2\n"]
    assert file.read_bytes() == whole
    cut_lines(file, [b"1\n"])
    assert open_journal(file, SETTINGS) == [b"1\n"]


def test_a_line_is_cut_at_line_feeds_alone(tmp_path):
    file = tmp_path / "toy.jsonl"
    open_journal(file, SETTINGS)
    append_lines(file, ["a\u2028b\x85c", "d"])
    assert list(map(json.loads, open_journal(file, SETTINGS))) == ["a\u2028b\x85c", "d"]


def test_different_settings_are_named_and_nothing_is_written(tmp_path):
    file = tmp_path / "toy.jsonl"
    open_journal(file, SETTINGS)
    append_lines(file, [1])
    for settings, named in (
        (SETTINGS | {"shots": 0}, "shots"),
        (SETTINGS | {"limit": 3}, "limit"),
        ({"task": "other"}, "shots, task"),
    ):
        with pytest.raises(ValueError, match=rf"toy\.jsonl was .* different settings \({named}\)"):
            open_journal(file, settings)
    assert file.read_bytes() == b"1\n"
    check_settings(file, SETTINGS)
    settings_file(file).unlink()
    with pytest.raises(ValueError, match=r"exists, but toy\.settings\.json next to it is missing"):
        check_settings(file, SETTINGS)
    check_settings(tmp_path / "new.jsonl", SETTINGS)


def test_settings_may_have_another_file(tmp_path):
    file, note = tmp_path / "out.jsonl", tmp_path / "out.jsonl.settings.json"
    open_journal(file, SETTINGS, note)
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name, note.name]


def test_a_lock_is_held_once_and_released_at_the_end(tmp_path):
    lock = tmp_path / ".lock"
    for _ in range(2):
        with locked(lock, None) as file:
            assert file.name == str(lock)
            with (
                pytest.raises(ValueError, match=r"out=.*: another process is writing it"),
                only_writer(lock, tmp_path),
            ):
                pytest.fail("the lock was taken twice")
