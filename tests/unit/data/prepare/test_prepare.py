import gzip
import io
import json
import os
import random
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

import data.prepare.chunks
import data.prepare.documents
import data.prepare.workers
import data.prepare.writer
import data.records.readers
from data.prepare.documents import PrepareConfig, prepare
from data.prepare.held_out import is_held_out, letters_and_digits, normalize
from data.prepare.manifest import Manifest
from data.prepare.writer import SourceWriter, open_writer
from data.records.readers import BadRecord, Position, find_inputs, read_records, text_of
from data.rows.shards import Source, read_manifest
from storage.checksum import sha256_of
from tests.helpers.draws import examples
from tokenizer.tokenizer import Tokenizer
from tokenizer.train import train_bpe

ROOT = Path(__file__).parents[4]
SHARED = ROOT / "../shared"
WORDS = ["rock", "river", "basalt", "delta", "岩石", "沉积物", "mantle", "Gneis", "ocean", "quartz"]
ODD_TEXTS = [
    "line separator \u2028 and next line \x85 stay in the text",
    "nul \x00 and bell \x07",
    'quotes " and \\ backslash',
    "沉积物,岩石。",
    "\ufeffa mark that is text",
    "emoji 🌋 beyond the basic plane",
    " spaces around ",
    "</s> is plain text",
]


def make_texts(count, seed=0):
    generator = random.Random(seed)
    texts = [" ".join(generator.choices(WORDS, k=generator.randint(1, 30))) for _ in range(count)]
    return [f"{text} {number}" for number, text in enumerate(texts)]


TEXTS = [*ODD_TEXTS, *make_texts(60)]


def json_lines(texts, field="text"):
    return b"".join(
        json.dumps({"id": n, field: text}, ensure_ascii=False).encode() + b"\n"
        for n, text in enumerate(texts)
    )


@pytest.fixture(scope="session")
def tokenizer_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(train_bpe(make_texts(200), vocab_size=330))
    return path


@pytest.fixture
def make(tmp_path, tokenizer_path, monkeypatch):
    """A config for files written on the spot."""
    monkeypatch.setattr(data.prepare.chunks, "CHUNK_RECORDS", 7)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)

    def config(files=None, **changes):
        files = {"a.jsonl": json_lines(TEXTS)} if files is None else files
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
        fields = {
            "name": "source",
            "inputs": [str(tmp_path / name) for name in files],
            "out": str(tmp_path / "out"),
            "tokenizer": str(tokenizer_path),
            "held_out_fraction": 0.2,
            "workers": 1,
        }
        return PrepareConfig(**(fields | changes))

    return config


def run(config):
    return prepare(config, progress=False)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def arrays(folder):
    """What does not depend on how the inputs were called."""
    return {name: data for name, data in contents(folder).items() if name != "manifest.json"}


# The source


def test_documents_are_bos_ids_eos_in_order(make, tokenizer_path):
    config = make()
    manifest = run(config)
    tokenizer = Tokenizer.open(tokenizer_path)
    training = [text for text in TEXTS if not is_held_out(text, 0.2)]
    held_out = [text for text in TEXTS if is_held_out(text, 0.2)]
    source = Source(config.out)
    assert training
    assert held_out
    assert source.documents == len(training) == manifest["documents"]
    for number, text in enumerate(training):
        ids = [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
        assert source.document(number).tolist() == ids
    assert list(source.held_out()) == held_out
    assert source.tokens == manifest["tokens"]


def test_manifest_counts_and_digests(make, tmp_path, tokenizer_path):
    config = make({"a.jsonl": json_lines(TEXTS[:40]), "b.jsonl": json_lines(TEXTS[40:]) + b"{}\n"})
    manifest = run(config)
    out = Path(config.out)
    assert manifest == read_manifest(out)
    tokenizer = Tokenizer.open(tokenizer_path)
    assert manifest["tokenizer"] == {
        "fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
    }
    assert [entry["documents"] for entry in manifest["inputs"]] == [40, len(TEXTS) - 40]
    assert manifest["inputs"][0]["sha256"] == sha256_of(tmp_path / "a.jsonl")
    assert manifest["held_out"]["sha256"] == sha256_of(out / "held_out.jsonl")
    assert manifest["skipped"] == {"no field 'text'": 1}
    total = sum(len(text.encode()) for text in TEXTS)
    assert manifest["utf8_bytes"] + manifest["held_out"]["utf8_bytes"] == total
    for entry in manifest["shards"]:
        for name, digest in entry["sha256"].items():
            assert sha256_of(out / name) == digest
    assert {path.name for path in out.iterdir()} == {
        "manifest.json",
        "held_out.jsonl",
        "skipped.jsonl",
        "shard-00000.tokens",
        "shard-00000.index",
    }


def test_shards_end_where_documents_say(make, tmp_path):
    run(make(out=str(tmp_path / "one")))
    whole = Source(tmp_path / "one")
    for number, chunk in enumerate((1, 5, 256)):
        data.prepare.chunks.CHUNK_RECORDS = chunk
        config = make(out=str(tmp_path / f"many-{number}"), shard_tokens=150)
        manifest = run(config)
        many = Source(config.out)
        assert len(manifest["shards"]) > 3
        assert many.documents == whole.documents
        for document in range(whole.documents):
            assert np.array_equal(many.document(document), whole.document(document))
        last = -1
        for entry in manifest["shards"][:-1]:
            last += entry["documents"]
            assert entry["tokens"] >= 150 > entry["tokens"] - len(many.document(last))
        assert arrays(config.out) == arrays(tmp_path / "many-0")


def test_max_documents_is_a_prefix(make, tmp_path):
    lines = json_lines(TEXTS).splitlines(keepends=True)
    lines[3] = b"not JSON\n"
    files = {"a.jsonl": b"".join(lines[:10]), "b.jsonl": b"".join(lines[10:])}
    run(make(files, max_documents=23, out=str(tmp_path / "limited")))
    (tmp_path / "b.jsonl").write_bytes(b"".join(lines[10:23]))
    inputs = [str(tmp_path / name) for name in files]
    run(make({}, inputs=inputs, out=str(tmp_path / "cut")))
    assert arrays(tmp_path / "limited") == arrays(tmp_path / "cut")


# Formats


def as_parquet(texts, kind=None):
    buffer = io.BytesIO()
    column = pa.array(texts, kind or pa.string())
    pq.write_table(pa.table({"n": range(len(texts)), "text": column}), buffer, row_group_size=9)
    return buffer.getvalue()


def in_parts(compress, content):
    """Concatenated members or frames, the second of them empty."""
    return compress(content[:1000]) + compress(b"") + compress(content[1000:])


LINES = json_lines(TEXTS)
PLAIN = "\n".join(TEXTS).encode()
FORMATS = {
    "jsonl": {"a.jsonl": LINES},
    "no final newline": {"a.jsonl": LINES[:-1]},
    "windows": {"a.jsonl": b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n")},
    "ascii": {"a.jsonl": b"".join(json.dumps({"text": t}).encode() + b"\n" for t in TEXTS)},
    "gzip": {"a.jsonl.gz": in_parts(gzip.compress, LINES)},
    "zstd": {"a.jsonl.zst": in_parts(zstandard.compress, LINES)},
    "parquet": {"a.parquet": as_parquet(TEXTS)},
    "large parquet": {"a.parquet": as_parquet(TEXTS, pa.large_string())},
    "categories": {"a.parquet": as_parquet(TEXTS, pa.dictionary(pa.int32(), pa.string()))},
    "text lines": {"a.txt": PLAIN},
    "windows text lines": {"a.txt": b"\xef\xbb\xbf" + PLAIN.replace(b"\n", b"\r\n") + b"\r\n"},
    "text files": {f"{n:03}.txt": text.encode() for n, text in enumerate(TEXTS) if n != 4}
    | {"004.txt": b"\xef\xbb\xbf" + TEXTS[4].encode()},
    "mixed": {"a.jsonl": json_lines(TEXTS[:20]), "b.parquet": as_parquet(TEXTS[20:])},
}


@pytest.fixture(scope="session")
def from_jsonl():
    return {}


@pytest.mark.parametrize("form", FORMATS)
def test_formats_give_equal_documents(make, from_jsonl, form):
    config = make(FORMATS[form], txt_documents="file" if form == "text files" else "line")
    manifest = run(config)
    assert manifest["documents"] + manifest["held_out"]["documents"] == len(TEXTS)
    assert not manifest["skipped"]
    reference = from_jsonl.setdefault("files", arrays(config.out))
    assert arrays(config.out) == reference


def test_empty_files_hold_no_document(make):
    files = {
        "a.jsonl": b"",
        "b.jsonl.gz": b"",
        "c.jsonl.gz": gzip.compress(b""),
        "d.jsonl.zst": b"",
        "e.jsonl.zst": zstandard.compress(b""),
        "f.parquet": as_parquet([]),
        "g.jsonl": LINES,
        "h.jsonl": b"\xef\xbb\xbf",
    }
    manifest = run(make(files))
    counts = [entry["documents"] for entry in manifest["inputs"]]
    assert counts == [0] * 6 + [len(TEXTS), 0]
    assert manifest["skipped"] == {"empty text": 1}


def test_an_empty_txt_file_is_an_empty_document(make):
    assert run(make({"a.txt": b"", "b.txt": b"basalt"}, held_out_fraction=0.0))["skipped"] == {
        "empty text": 1
    }


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(), min_size=1, max_size=8), ascii=st.booleans())
def test_texts_are_read_as_written(tmp_path, texts, ascii):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": text}, ensure_ascii=ascii) for text in texts]
    path.write_bytes("\n".join(lines).encode())
    records = list(read_records([str(path)], "text", "file", Position()))
    assert [record.position.line for record in records] == list(range(1, len(texts) + 1))
    for record, text in zip(records, texts, strict=True):
        if text.strip():
            assert text_of(record, "text") == text
        else:
            with pytest.raises(BadRecord, match="empty text"):
                text_of(record, "text")


def test_reading_holds_one_record(tmp_path):
    path = tmp_path / "a.jsonl.zst"
    texts = (random.Random(n).randbytes(500).hex() for n in range(20_000))
    path.write_bytes(zstandard.compress(json_lines(texts)))
    tracemalloc.start()
    count = sum(1 for _ in read_records([str(path)], "text", "file", Position()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 5e6 < 1000 * count


def test_a_long_line_is_a_document(make):
    long = "basalt " * 200_000
    config = make({"a.jsonl": json_lines([long, "delta"])}, held_out_fraction=0.0)
    assert run(config)["utf8_bytes"] == len(long) + len("delta")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.txt"])
def test_an_overlong_record_is_skipped_whole(make, monkeypatch, name):
    monkeypatch.setattr(data.records.readers, "LONGEST_RECORD", 1 << 20)
    texts = ["basalt", "x" * (3 << 20), "y" * ((1 << 20) + 10), "delta"]
    content = "\n".join(texts).encode() if name == "a.txt" else json_lines(texts)
    content = gzip.compress(content) if name.endswith(".gz") else content
    config = make({name: content}, txt_documents="line", held_out_fraction=0.0)
    manifest = run(config)
    assert manifest["skipped"] == {"longer than 1 MiB": 2}
    assert manifest["documents"] == 2
    assert [bad["line"] for bad in skipped(config)] == [2, 3]


def test_an_overlong_text_file_is_skipped(make, monkeypatch):
    monkeypatch.setattr(data.records.readers, "LONGEST_RECORD", 1 << 20)
    config = make({"a.txt": b"x" * (1 << 20), "b.txt": b"delta"}, held_out_fraction=0.0)
    assert run(config)["skipped"] == {"longer than 1 MiB": 1}


# Bad records

BAD_LINES = [
    (b"{'text': 1}", "invalid JSON"),
    (b'{"text": "cut', "invalid JSON"),
    (b"[" * 200_000, "invalid JSON"),
    (b'{"n": ' + b"1" * 5000 + b', "text": "x"}', "invalid JSON"),
    (b'{"text": "\x00"}', "invalid JSON"),
    (b'{"text": "caf\xe9"}', "invalid UTF-8"),
    (b'{"text": "\xed\xa0\x80"}', "invalid UTF-8"),
    (b'\xff\xfe{\x00"\x00', "invalid UTF-8"),
    (b'["text"]', "not a JSON object"),
    (b'"text"', "not a JSON object"),
    (b"null", "not a JSON object"),
    (b'{"body": "x"}', "no field 'text'"),
    (b'{"text": null}', "field 'text' is not a string"),
    (b'{"text": ["x"]}', "field 'text' is not a string"),
    (b'{"text": ""}', "empty text"),
    (b'{"text": " \\n\\t\\u3000\\u2028 "}', "empty text"),
    (b"", "empty text"),
    (b"  ", "empty text"),
    (b'{"text": "\\ud83c alone"}', "lone surrogate"),
]


def skipped(config):
    with (Path(config.out) / "skipped.jsonl").open() as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES)
def test_bad_lines_are_reported_and_skipped_or_fatal(make, tmp_path, line, reason):
    content = json_lines(["basalt"]) + line + b"\n" + json_lines(["delta"])
    files = {"a.jsonl": json_lines(["mantle"]), "b.jsonl": content}
    config = make(files, held_out_fraction=0.0)
    manifest = run(config)
    assert manifest["documents"] == 3
    assert manifest["skipped"] == {reason: 1}
    path = str(tmp_path / "b.jsonl")
    assert skipped(config) == [{"file": path, "line": 2, "reason": reason}]

    config = make(files, on_error="fail", out=str(tmp_path / "strict"))
    with pytest.raises(ValueError, match="on_error=skip") as error:
        run(config)
    assert str(error.value).startswith(f"{path}:2: {reason};")
    assert not Path(config.out).exists()


def test_bad_rows_and_text_lines(make):
    table = pa.table({"text": pa.array([b"basalt", None, b"\xff", b" "]).view(pa.string())})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    files = {"a.parquet": buffer.getvalue(), "b.txt": b"delta\n\n\xff\nmantle\n"}
    config = make(files, txt_documents="line", held_out_fraction=0.0)
    assert run(config)["documents"] == 3
    assert [(Path(bad["file"]).name, bad["line"], bad["reason"]) for bad in skipped(config)] == [
        ("a.parquet", 2, "field 'text' is not a string"),
        ("a.parquet", 3, "invalid UTF-8"),
        ("a.parquet", 4, "empty text"),
        ("b.txt", 2, "empty text"),
        ("b.txt", 3, "invalid UTF-8"),
    ]


def test_the_first_bad_lines_of_each_kind_are_shown(make, capsys):
    config = make({"a.jsonl": LINES + b"{}\n" * 20 + b"\xff\n"})
    prepare(config, progress=True)
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped ")]
    assert len(shown) == data.prepare.documents.SHOWN_PER_REASON + 1
    first = len(TEXTS) + 1
    assert shown[0] == f"skipped {config.inputs[0]}:{first}: no field 'text'"


def test_without_progress_nothing_is_printed(make, capfd):
    run(make({"a.jsonl": LINES + b"{}\n"}))
    assert capfd.readouterr() == ("", "")


# Interruptions


class Stopped(Exception):
    pass


def interrupt(config, monkeypatch, after=3):
    """Leave work undone after some chunks."""
    add, calls = SourceWriter.add, []

    def stop(draft, chunk):
        calls.append(chunk)
        if len(calls) > after:
            raise Stopped
        add(draft, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(SourceWriter, "add", stop)
        patch.setattr(data.prepare.documents, "JOURNAL_SECONDS", 0.0)
        with pytest.raises(Stopped):
            run(config)
    assert not Path(config.out).exists()


@pytest.mark.parametrize("part", ["appends", "fold_version"])
def test_unfinished_work_of_an_earlier_version_is_refused(make, monkeypatch, part):
    config = make()
    interrupt(config, monkeypatch)
    journal = Path(f"{config.out}.tmp") / "journal.json"
    content = json.loads(journal.read_text())
    manifest = content["manifest"]
    del (manifest if part == "appends" else manifest["settings"])[part]
    journal.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="unfinished work of an earlier version; remove it"):
        run(config)


def test_work_goes_on_instead_of_starting_anew(make, monkeypatch, capsys):
    config = make()
    interrupt(config, monkeypatch, after=4)
    lines = []
    monkeypatch.setattr(
        data.prepare.chunks,
        "text_of",
        lambda record, field: lines.append(record.position.line) or "text",
    )
    prepare(config, progress=True)
    assert lines == list(range(4 * 7 + 1, len(TEXTS) + 1))
    assert f"after record {4 * 7}" in capsys.readouterr().err


def test_a_changed_input_is_refused(make, tmp_path, monkeypatch):
    interrupt(make(), monkeypatch)
    with pytest.raises(ValueError, match=r"settings \(input .*a\.jsonl"):
        run(make({"a.jsonl": LINES.replace(b"delta", b"Delta")}))


def test_an_input_that_changes_while_it_is_read_is_refused(make, tmp_path, monkeypatch):
    config = make()
    add = SourceWriter.add

    def change(draft, chunk):
        (tmp_path / "a.jsonl").write_bytes(LINES + LINES)
        add(draft, chunk)

    monkeypatch.setattr(SourceWriter, "add", change)
    with pytest.raises(ValueError, match=r"a\.jsonl changed during the reading; remove"):
        run(config)
    assert not Path(config.out).exists()


def test_after_a_fatal_record_work_can_go_on_skipping_but_not_the_reverse(make, monkeypatch):
    config = make({"a.jsonl": LINES + b"{}\n" + json_lines(make_texts(9, seed=1))})
    monkeypatch.setattr(data.prepare.documents, "JOURNAL_SECONDS", 0.0)
    config.on_error = "fail"
    with pytest.raises(ValueError, match="no field 'text'; correct the record"):
        run(config)
    config.on_error = "skip"
    interrupt(config, monkeypatch, after=2)
    config.on_error = "fail"
    with pytest.raises(ValueError, match="has already skipped bad records"):
        run(config)
    config.on_error = "skip"
    assert run(config)["skipped"] == {"no field 'text'": 1}


def test_one_process_at_a_time(make):
    config = make()
    manifest = Manifest(name="other", dtype="<u2", tokenizer={}, held_out={}, inputs=[])
    with (
        open_writer(Path(config.out), manifest),
        pytest.raises(ValueError, match="another process is preparing"),
    ):
        run(config)
    run(config)


# The split


def test_no_training_document_is_a_copy_of_a_held_out_one(make, tokenizer_path):
    texts = make_texts(150)
    copies = [text.upper() + " !" for text in texts] + [f"\u3000{text}\n" for text in texts]
    config = make({"a.jsonl": json_lines(texts), "b.jsonl": json_lines(copies)})
    run(config)
    source, tokenizer = Source(config.out), Tokenizer.open(tokenizer_path)

    def bare(text):
        return letters_and_digits(normalize(text))

    training = {
        bare(tokenizer.decode(source.document(number).tolist()[1:-1]))
        for number in range(source.documents)
    }
    held_out = [bare(text) for text in source.held_out()]
    assert training.isdisjoint(held_out)
    assert len(held_out) == 3 * len(set(held_out))
    assert training | set(held_out) == {bare(text) for text in texts}


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.25])
def test_the_held_out_share_is_what_was_asked(fraction):
    count = 4000
    share = sum(is_held_out(f"document {n}", fraction) for n in range(count)) / count
    deviation = (fraction * (1 - fraction) / count) ** 0.5
    assert abs(share - fraction) <= 4 * deviation


def test_a_larger_share_holds_the_smaller():
    texts = make_texts(500)
    small = {text for text in texts if is_held_out(text, 0.05)}
    assert small < {text for text in texts if is_held_out(text, 0.2)}


# Refusals


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "a/b"),
        ("name", "two words"),
        ("inputs", []),
        ("out", ""),
        ("tokenizer", ""),
        ("text_field", ""),
        ("txt_documents", "paragraph"),
        ("held_out_fraction", 1.0),
        ("held_out_fraction", -0.1),
        ("held_out_fraction", float("nan")),
        ("on_error", "ignore"),
        ("workers", -1),
        ("max_documents", -1),
        ("shard_tokens", 0),
    ],
)
def test_config_names_the_bad_field(make, field, value):
    with pytest.raises(ValueError, match=f"^{field}: "):
        make(**{field: value})


def test_inputs_are_sorted_files(tmp_path):
    for name in ("b.jsonl", "a.txt", "sub/c.jsonl.zst", "odd[1].jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = find_inputs([f"{tmp_path}/**/*.jsonl*", f"{tmp_path}/*.txt"], "text")
    names = [str(Path(path).relative_to(tmp_path)) for path in found]
    assert names == ["a.txt", "b.jsonl", "odd[1].jsonl", "sub/c.jsonl.zst"]
    assert find_inputs([f"{tmp_path}/odd[1].jsonl"], "text") == [f"{tmp_path}/odd[1].jsonl"]


@pytest.mark.parametrize("missing", ["nothing.jsonl", "*.jsonl"])
def test_inputs_that_match_nothing(tmp_path, missing):
    with pytest.raises(ValueError, match="matches no file"):
        find_inputs([str(tmp_path / missing)], "text")


def test_inputs_that_match_twice(tmp_path):
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(ValueError, match="matched twice"):
        find_inputs([f"{tmp_path}/a.jsonl", f"{tmp_path}/*.jsonl"], "text")


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.jsonl.bz2", "a", "a.parquet.gz"])
def test_unknown_formats(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match="is in no known format"):
        find_inputs([f"{tmp_path}/{name}"], "text")


def test_parquet_is_checked_before_any_work(make, tmp_path):
    with pytest.raises(ValueError, match="no column 'body'; set text_field to one of n, text"):
        run(make({"a.parquet": as_parquet(TEXTS)}, text_field="body"))
    with pytest.raises(ValueError, match="column 'n' holds int64, not strings"):
        run(make({"a.parquet": as_parquet(TEXTS)}, text_field="n"))
    with pytest.raises(ValueError, match="is not a Parquet file"):
        run(make({"a.parquet": LINES}))
    assert not (tmp_path / "out.tmp").exists()


def test_parquet_without_pyarrow_names_the_extra(make, monkeypatch):
    config = make({"a.parquet": as_parquet(TEXTS)})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[parquet\]'"):
        run(config)


def damaged(name):
    lines = json_lines(make_texts(3000))
    if name == "cut.jsonl.gz":
        return gzip.compress(lines)[:-20]
    if name == "cut.jsonl.zst":
        return zstandard.compress(lines)[:-20]
    if name == "flipped.jsonl.gz":
        content = bytearray(gzip.compress(lines))
        content[len(content) // 2] ^= 0xFF
        return bytes(content)
    if name == "tail.jsonl.zst":
        return zstandard.compress(lines) + b"what is this?"
    if name == "plain.jsonl.gz":
        return lines
    content = bytearray(as_parquet(make_texts(3000)))
    content[1000:9000] = b"\x00" * 8000
    return bytes(content)


@pytest.mark.parametrize(
    "name",
    [
        "cut.jsonl.gz",
        "cut.jsonl.zst",
        "flipped.jsonl.gz",
        "tail.jsonl.zst",
        "plain.jsonl.gz",
        "holes.parquet",
    ],
)
def test_a_damaged_file_is_fatal(make, name):
    config = make({name: damaged(name)})
    with pytest.raises(ValueError, match=rf"{name}: damaged after (line|row) \d+ .*restore"):
        run(config)
    assert not Path(config.out).exists()


def test_nothing_to_train_on(make, tmp_path):
    with pytest.raises(
        ValueError, match=r"no document is left .* 1 x no field 'text', 1 x invalid"
    ):
        run(make({"a.jsonl": b"{}\n\xff\n"}))
    with pytest.raises(ValueError, match="0 records read, 0 held out, skipped: none"):
        run(make({"a.jsonl": b""}))
    run(make())  # what failed leaves nothing in the way


def test_what_exists_is_not_touched(make, tmp_path):
    config = make()
    run(config)
    before = contents(config.out)
    with pytest.raises(ValueError, match="is prepared already"):
        run(config)
    assert contents(config.out) == before
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="exists and is not a prepared source"):
        run(make(out=str(tmp_path / "folder")))


def test_a_missing_tokenizer(make, tmp_path):
    with pytest.raises(ValueError, match=r"nothing\.model"):
        run(make(tokenizer=str(tmp_path / "nothing.model")))
    assert not (tmp_path / "out.tmp").exists()


def test_file_names_need_not_be_utf8(make, tmp_path):
    name = os.fsdecode(b"\xb5\xd8.jsonl")
    config = make({name: LINES + b"{}\n"})
    manifest = run(config)
    assert manifest == read_manifest(Path(config.out))
    assert skipped(config)[0]["file"] == str(tmp_path / name) == manifest["inputs"][0]["path"]


# The command


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="needs the corpora in ../shared")
@pytest.mark.slow
def test_a_real_corpus(make):
    config = make(
        {},
        inputs=[str(SHARED / "corpus/geo_zh.jsonl.zst")],
        tokenizer=str(SHARED / "tokenizers/mistral-7b-v0.1.tokenizer.model"),
        held_out_fraction=0.01,
    )
    manifest = run(config)
    assert manifest["documents"] + manifest["held_out"]["documents"] == 700
    assert 2.4 < manifest["utf8_bytes"] / manifest["tokens"] < 2.7
    source, tokenizer = Source(config.out), Tokenizer.open(config.tokenizer)
    texts = [
        text_of(record, "text")
        for record in read_records(config.inputs, "text", "file", Position())
    ]
    training = [text for text in texts if not is_held_out(text, 0.01)]
    for number in (0, 1, len(training) - 1):
        assert tokenizer.decode(source.document(number).tolist()[1:-1]) == training[number]
