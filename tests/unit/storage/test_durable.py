import os
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from evaluation.judge.answers import read_answers
from inference.generation.batch import read_prompts
from inference.generation.question_files import read_open_questions
from storage.atomic import GROWTH, fsync, fsync_while_writing, new_folder
from tokenizer.tokenizer import Tokenizer
from tools.vocabulary.inputs import read_candidates


@pytest.fixture
def on_disk(monkeypatch):
    """Bytes that each file had whenever it was forced to disk, by name."""
    sizes: dict[str, list[int]] = {}

    def recorded(path):
        sizes.setdefault(path.name, []).append(path.stat().st_size)
        fsync(path)

    monkeypatch.setattr("storage.atomic.fsync", recorded)
    return sizes


def wait_until(holds):
    deadline = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_file_is_forced_to_disk_while_it_grows(tmp_path, on_disk):
    small, large = tmp_path / "small", tmp_path / "large"
    with fsync_while_writing(tmp_path):
        small.write_bytes(b"x")
        with large.open("wb") as file:
            file.truncate(GROWTH)
            wait_until(lambda: GROWTH in on_disk.get("large", ()))
            file.seek(0, os.SEEK_END)
            file.write(b"x")
        assert "small" not in on_disk
    assert on_disk["small"] == [1]
    assert on_disk["large"] == [GROWTH, GROWTH + 1]


def test_only_files_of_the_pattern_are_forced(tmp_path, on_disk):
    with fsync_while_writing(tmp_path, "__0_*"):
        for name in ("__0_0.distcp", "__1_0.distcp"):
            (tmp_path / name).write_bytes(b"x")
    assert list(on_disk) == ["__0_0.distcp"]


def test_a_file_may_get_its_name_while_it_is_forced(tmp_path, monkeypatch):
    """As parts of an export do, whose names say how many there are."""
    part, final = tmp_path / "part", tmp_path / "final"

    def stat(path, **options):
        found = original(path, **options)
        if path == part:
            part.rename(final)
        return found

    original = Path.stat
    monkeypatch.setattr(Path, "stat", stat)
    with fsync_while_writing(tmp_path):
        with part.open("wb") as file:
            file.truncate(GROWTH)
        wait_until(final.exists)
    assert list(tmp_path.iterdir()) == [final]


@pytest.mark.parametrize("when", ["while it grows", "at the end"])
def test_what_cannot_be_forced_to_disk_gets_no_name(tmp_path, monkeypatch, when):
    """The kernel reports a failed write once: who hears of it must not keep it."""
    failed = []

    def fail_once(_):
        if not failed:
            failed.append(True)
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail_once)

    def write():
        with new_folder(tmp_path / "model") as partial, (partial / "weights").open("wb") as file:
            if when == "while it grows":
                file.truncate(GROWTH)
                wait_until(lambda: failed)

    with pytest.raises(OSError, match="Input/output error"):
        write()
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_writer_is_the_one_that_is_raised(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)

    def write():
        with fsync_while_writing(tmp_path):
            (tmp_path / "weights").write_bytes(b"x")
            raise ValueError("not this way")

    with pytest.raises(ValueError, match="not this way"):
        write()


@pytest.mark.parametrize(
    ("field", "read"),
    [
        ("prompts=", lambda path: read_prompts(path, Mock(spec=Tokenizer), chat=False)),
        ("questions=", read_open_questions),
        ("answers.one=", lambda path: read_answers("one", path, [])),
        ("candidates: ", read_candidates),
    ],
)
def test_a_folder_in_place_of_a_file_is_called_a_folder(field, read, tmp_path):
    with pytest.raises(ValueError, match=rf"^{field}{tmp_path}: this is a folder, not a file; "):
        read(tmp_path)
    with pytest.raises(ValueError, match=rf"^{field}{tmp_path}/no: no such file; give a"):
        read(tmp_path / "no")
