"""Appending to a source: killed at any line, and as a command."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import data.prepare.chunks
import data.prepare.documents
import data.prepare.writer
from data.prepare.chunks import HELD_OUT_IS_FIXED
from data.prepare.writer import SourceWriter
from data.rows.shards import fingerprint_of, read_manifest
from tests.unit.data.prepare.test_append import (  # noqa: F401 fixtures
    NEW,
    OLD,
    Stopped,
    config,
    run,
    stop,
    tokenizer_path,
)
from tests.unit.data.prepare.test_near_copies import changed
from tests.unit.data.prepare.test_prepare import contents, make_texts

ROOT = Path(__file__).parents[3]


HARNESS = """
import json, os, shutil, sys
from pathlib import Path
import data.prepare.chunks, data.prepare.writer, storage.atomic, storage.lock
import data.prepare.manifest, data.prepare.overlap_index, data.prepare.documents
from data.prepare.ngrams import ngram_hashes
from data.rows.shards import Source

ngram_hashes("")  # builds its table here, once for all children
os.fsync = lambda descriptor: None  # a killed process loses no page
data.prepare.chunks.CHUNK_RECORDS, data.prepare.documents.JOURNAL_SECONDS = 20, 0.0
fields = json.loads(sys.argv[1])
root = Path(fields["out"]).parent
read = lambda folder: {path.name: path.read_bytes() for path in folder.iterdir()}
old, new = read(root / "old"), read(root / "grown")
modules = (
    data.prepare.writer, data.prepare.manifest, storage.atomic, storage.lock,
    data.prepare.overlap_index, data.prepare.documents,
)
traced = {module.__file__ for module in modules}

def append(out, line=-1):
    "In a process killed at a line: what it says, if it lives, and the lines it has run."
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        count, publishing = 0, 0
        def trace(frame, event, argument):
            nonlocal count, publishing
            if frame.f_code.co_filename not in traced:
                return None
            if frame.f_code.co_name == "publish" and not publishing:
                publishing = count
            if event == "line":
                count += 1
                if count == line:
                    os._exit(9)
            return trace
        config = data.prepare.documents.PrepareConfig(**fields | {"out": str(out)})
        sys.settrace(trace)
        said = ""
        try:
            data.prepare.documents.prepare(config, progress=False)
        except ValueError as error:
            said = str(error)
        os.write(writer, json.dumps([said, count, publishing]).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        answer = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == (0 if answer else 9), status
    return json.loads(answer) if answer else None

out = root / "out"
shutil.copytree(root / "old", out)
said, total, publishing = append(out)
assert not said and read(out) == new and publishing
outcomes = {"old": 0, "new": 0}
for line in [*range(1, publishing, publishing // 20), *range(publishing, total + 1)]:
    shutil.rmtree(out)
    shutil.copytree(root / "old", out)
    assert append(out, line) is None
    found = read(out)
    state = "new" if found["manifest.json"] == new["manifest.json"] else "old"
    outcomes[state] += 1
    want = new if state == "new" else old
    shards = [name for name in want if name.startswith("shard")]
    for name in [*shards, "manifest.json", "held_out.jsonl"]:
        assert found[name] == want[name], (line, name)
    source = Source(out)
    assert source.document(source.documents - 1).size
    said = append(out)[0]
    if said:  # nothing was left to do
        assert state == "new" and "is in" in said and "already" in said, said
        assert not (root / "out.tmp/manifest.json").exists()
        shutil.rmtree(root / "out.tmp", ignore_errors=True)  # at most an empty folder and a lock
    assert read(out) == new, line
    assert not (root / "out.tmp").exists()
print(json.dumps(outcomes))
"""


def test_killed_at_any_line_the_source_is_the_old_or_the_new_one(config, tmp_path):
    run(config("a", OLD, out=str(tmp_path / "old")))
    shutil.copytree(tmp_path / "old", tmp_path / "grown")
    run(config("b", [*NEW, *map(changed, OLD)], shard_tokens=1500, out=str(tmp_path / "grown")))
    fields = json.dumps(vars(config("b", shard_tokens=1500)))
    ended = subprocess.run(
        [sys.executable, "-c", HARNESS, fields],
        cwd=ROOT, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    outcomes = json.loads(ended.stdout)
    assert outcomes["old"] > 20 + 10
    assert outcomes["new"] > 10


def test_the_command_appends(config, tmp_path):
    run(config("a", OLD))
    before = fingerprint_of(read_manifest(tmp_path / "out"))
    appended = config("b", NEW)
    ended = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-m", "scripts.prepare_data", "append=true"),
            *(f"name={appended.name}", f"inputs=[{appended.inputs[0]}]", f"out={appended.out}"),
            *(f"tokenizer={appended.tokenizer}", "held_out_fraction=0.2", "workers=1"),
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    manifest = read_manifest(tmp_path / "out")
    assert fingerprint_of(manifest) != before
    assert f"{manifest['tokens']:,}" in ended.stdout
    assert HELD_OUT_IS_FIXED in ended.stdout


@pytest.mark.parametrize("workers", [1, 2])
def test_work_cut_off_goes_on(config, tmp_path, monkeypatch, workers):
    run(config("a", OLD))
    run(config("b", NEW))
    expected = contents(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "reference")
    run(config("a"))
    before, add = contents(tmp_path / "out"), SourceWriter.add
    for stop_after in (2, 3):
        calls = []

        def some(draft, chunk, calls=calls, stop_after=stop_after):
            calls.append(chunk)
            add(draft, chunk) if len(calls) <= stop_after else stop()

        with monkeypatch.context() as patch:
            patch.setattr(SourceWriter, "add", some)
            patch.setattr(data.prepare.documents, "JOURNAL_SECONDS", 0.0)
            with pytest.raises(Stopped):
                run(config("b"))
        assert contents(tmp_path / "out") == before
    with pytest.raises(ValueError, match=r"unfinished work with different settings \(input"):
        run(config("c", make_texts(20, seed=3)))
    run(config("b", workers=workers))
    assert contents(tmp_path / "out") == expected
