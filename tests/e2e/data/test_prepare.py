"""Preparation in several processes, killed at any line, and as a command."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import data.prepare.chunks
import data.prepare.documents
import data.prepare.workers
import data.prepare.writer
import data.records.readers
from data.rows.shards import read_manifest
from tests.unit.data.prepare.test_prepare import (  # noqa: F401 fixtures
    LINES,
    ROOT,
    TEXTS,
    contents,
    interrupt,
    json_lines,
    make,
    make_texts,
    run,
    tokenizer_path,
)

HARNESS = """
import json, os, shutil, sys
from pathlib import Path
import data.prepare.chunks, data.prepare.writer, storage.atomic, storage.lock
import data.prepare.overlap_index, data.prepare.documents, data.rows.shards

os.fsync = lambda descriptor: None  # a killed process loses no page
data.prepare.chunks.CHUNK_RECORDS, data.prepare.documents.JOURNAL_SECONDS = 6, 0.0
fields = json.loads(sys.argv[1])
reference = {path.name: path.read_bytes() for path in Path(fields["out"]).iterdir()}
modules = (
    data.prepare.writer, storage.atomic, storage.lock,
    data.prepare.overlap_index, data.prepare.documents, data.rows.shards,
)
traced = {module.__file__ for module in modules}

def prepare(out, lines):
    "In a process that is killed after so many lines; returns whether it lived, and its lines."
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0
        def trace(frame, event, argument):
            nonlocal count
            if frame.f_code.co_filename not in traced:
                return None
            if event == "line":
                count += 1
                if count == lines:
                    os._exit(9)
            return trace
        config = data.prepare.documents.PrepareConfig(**fields | {"out": str(out)})
        sys.settrace(trace)
        data.prepare.documents.prepare(config, progress=False)
        os.write(writer, str(count).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        count = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9), status
    return status == 0, int(count or 0)

def check(out):
    found = {path.name: path.read_bytes() for path in out.iterdir()}
    assert found == reference, (out, found.keys(), reference.keys())
    shutil.rmtree(out)

folder = Path(fields["out"]).parent / "killed"
_, total = prepare(folder / "never", -1)
check(folder / "never")
kills = 0
for lines in [*range(1, total, total // 32), *range(total - 60, total, 5)]:
    out = folder / str(lines)
    assert not prepare(out, lines)[0]
    kills += 1
    if not out.exists():  # otherwise the rename, the last thing that matters, had been done
        assert prepare(out, -1)[0]
    check(out)
for lines in (total // 2, total * 2 // 3):
    out = folder / f"every-{lines}"
    while not out.exists():
        kills += not prepare(out, lines)[0]
        assert kills < 200
    check(out)
print(kills)
"""


def in_project(code, config, **options):
    fields = json.dumps(vars(config))
    return subprocess.Popen(
        [sys.executable, "-c", code, fields], cwd=ROOT, stdout=subprocess.PIPE, text=True, **options
    )


def test_killed_at_any_line_the_files_come_out_the_same(make):
    lines = json_lines(TEXTS[:25]) + b"{}\n"
    config = make({"a.jsonl": lines, "b.txt": b"one more document"}, shard_tokens=300)
    assert len(run(config)["shards"]) == 3
    with in_project(HARNESS, config) as process:
        output, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    assert int(output) > 40


KILLED = """
import json, sys, time
import data.prepare.chunks, data.prepare.writer, data.prepare.documents
save = data.prepare.writer.SourceWriter.save
def slowly(draft):
    save(draft)
    time.sleep(0.05)
data.prepare.writer.SourceWriter.save = slowly
data.prepare.chunks.CHUNK_RECORDS, data.prepare.documents.JOURNAL_SECONDS = 5, 0.0
if __name__ == "__main__":
    config = data.prepare.documents.PrepareConfig(**json.loads(sys.argv[1]))
    data.prepare.documents.prepare(config, progress=False)
"""


def test_killed_with_workers_it_goes_on_and_leaves_no_process(make, tmp_path):
    files = {"a.jsonl.gz": gzip.compress(json_lines(make_texts(400)))}
    run(make(files, shard_tokens=2000))
    config = make(files, shard_tokens=2000, workers=2, out=str(tmp_path / "killed"))
    journal = tmp_path / "killed.tmp/journal.json"
    with in_project(KILLED, config) as process:
        deadline = time.monotonic() + 300
        while not journal.exists() or json.loads(journal.read_text())["records"] < 50:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=300)  # ends when no worker holds the pipe any more
    assert process.returncode == -signal.SIGKILL
    assert not Path(config.out).exists()
    done = json.loads(journal.read_text())["records"]
    assert 50 <= done < 400
    run(config)
    assert contents(config.out) == contents(tmp_path / "out")


def command(*overrides):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "scripts.prepare_data", *overrides],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


def overrides(config):
    return [
        f"name={config.name}",
        f"inputs=[{config.inputs[0]}]",
        f"tokenizer={config.tokenizer}",
        f"out={config.out}",
        "workers=2",
    ]


def test_the_command_reports(make):
    texts = ["basalt and delta " * 100, *make_texts(30)]
    config = make({"a.jsonl": json_lines(texts) + b"{}\n"})
    ended = command(*overrides(config), "held_out_fraction=1e-9")
    assert ended.returncode == 0, ended.stderr
    manifest = read_manifest(Path(config.out))
    assert f"{manifest['tokens']:,}" in ended.stdout
    assert "no field 'text'" in ended.stdout
    assert "skipped.jsonl" in ended.stdout
    assert "warning: no document was held out" in ended.stdout
    first = manifest["tokenizer"]
    shown = f"[BOS {first['bos_id']}]{texts[0][:300]}...[EOS {first['eos_id']}]"
    assert shown in ended.stdout
    assert f"skipped {config.inputs[0]}:32: no field 'text'" in ended.stderr


def test_the_command_ends_with_one_message(make):
    config = make()
    for arguments, message in (
        ([*overrides(config), "inputs=[no.jsonl]"], "inputs: 'no.jsonl' matches no file"),
        (["name=a"], "inputs, out, tokenizer: must be given"),
    ):
        ended = command(*arguments)
        assert ended.returncode == 1
        assert ended.stderr.splitlines()[-1].startswith(f"error: {message}")
        assert "Traceback" not in ended.stderr


def test_workers_import_no_torch():
    code = "import scripts.prepare_data, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_workers_do_not_show(make, tmp_path, monkeypatch):
    monkeypatch.setattr(data.prepare.workers, "CHUNKS_PER_WORKER", 2)
    files = {"a.jsonl": json_lines(TEXTS) + b"\xff\n", "b.jsonl": json_lines(make_texts(90, 1))}
    for workers in (1, 2):
        run(make(files, workers=workers, shard_tokens=500, out=str(tmp_path / str(workers))))
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_another_config_does_not_take_over_unfinished_work(make, tmp_path, monkeypatch):
    config = make()
    interrupt(config, monkeypatch)
    changes = {
        "name": "other",
        "text_field": "id",
        "held_out_fraction": 0.3,
        "txt_documents": "line",
        "max_documents": 40,
        "shard_tokens": 9,
    }
    for field, value in changes.items():
        with pytest.raises(ValueError, match=rf"work with different settings \({field}\);"):
            run(make(**{field: value}))
    (tmp_path / "b.jsonl").write_bytes(LINES)
    with pytest.raises(ValueError, match=r"settings \(input .*b\.jsonl\); remove it"):
        run(make(inputs=[str(tmp_path / "[ab].jsonl")]))
    run(make(workers=2))
