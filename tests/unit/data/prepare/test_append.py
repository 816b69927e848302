"""A prepared source grows by further shards; what it has is not touched."""

import json
import os
from pathlib import Path

import pytest

import data.prepare.chunks
import data.prepare.documents
import data.prepare.writer
from data.prepare.chunks import HELD_OUT_IS_FIXED
from data.prepare.documents import PrepareConfig, prepare
from data.prepare.held_out import is_held_out
from data.prepare.overlap_index import NEAR_AVOIDED, NEAR_HELD_OUT
from data.rows.shards import Source, fingerprint_of, read_manifest
from storage.checksum import sha256_of
from tests.unit.data.prepare.test_near_copies import changed, long_texts
from tests.unit.data.prepare.test_prepare import contents, json_lines, make_texts, skipped
from tokenizer.train import train_bpe

OLD = [*make_texts(40), *long_texts(20)]
NEW = [f"new {text}" for text in make_texts(50, seed=1)]


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(train_bpe(make_texts(200), vocab_size=330))
    return path


@pytest.fixture
def config(tmp_path, tokenizer_path, monkeypatch):
    """Configs for inputs in tmp_path: `config("b", ...)` appends b.jsonl."""
    monkeypatch.setattr(data.prepare.chunks, "CHUNK_RECORDS", 7)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)

    def build(file, texts=None, **changes):
        path = tmp_path / f"{file}.jsonl"
        if texts is not None:
            path.write_bytes(json_lines(texts) + b"{}\n")
        fields = {
            "name": "source",
            "inputs": [str(path)],
            "out": str(tmp_path / "out"),
            "append": file != "a",
            "tokenizer": str(tokenizer_path),
            "held_out_fraction": 0.2,
            "workers": 1,
            "shard_tokens": 600,
        }
        return PrepareConfig(**(fields | changes))

    return build


def run(config):
    return prepare(config, progress=False)


def documents(source):
    return [source.document(number).tolist() for number in range(source.documents)]


def on_disk(folder):
    """What identifies the files of the shards, beyond their bytes."""
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(Path(folder).glob("shard-*"))
    }


def training(texts):
    return [text for text in texts if not is_held_out(text, 0.2)]


def test_a_source_grows_and_what_it_has_stays(config, tmp_path):
    old = run(config("a", OLD))
    out = tmp_path / "out"
    files, before = on_disk(out), Source(out)
    held_out, listed = (out / "held_out.jsonl").read_bytes(), skipped(config("a"))
    manifest = run(config("b", NEW))
    after = Source(out)
    assert len(old["shards"]) > 1
    assert on_disk(out).items() > files.items()
    assert manifest == read_manifest(out)
    assert manifest["shards"][: len(old["shards"])] == old["shards"]
    assert after.fingerprint != before.fingerprint
    assert (out / "held_out.jsonl").read_bytes() == held_out
    assert manifest["held_out"] == old["held_out"]

    # The same documents, prepared on their own, follow those that were there.
    kept = config("alone", training(NEW), append=False, held_out_fraction=0.0)
    kept.out = str(tmp_path / "alone")
    run(kept)
    assert documents(after) == documents(before) + documents(Source(tmp_path / "alone"))
    refused = len(NEW) - len(training(NEW))
    assert manifest["skipped"] == {"no field 'text'": 2, HELD_OUT_IS_FIXED: refused}
    lines = [n for n, text in enumerate(NEW, 1) if is_held_out(text, 0.2)]
    path = str(tmp_path / "b.jsonl")
    assert skipped(config("a")) == [
        *listed,
        *({"file": path, "line": line, "reason": HELD_OUT_IS_FIXED} for line in lines),
        {"file": path, "line": len(NEW) + 1, "reason": "no field 'text'"},
    ]
    for total in ("documents", "tokens", "utf8_bytes"):
        assert manifest[total] == sum(shard[total] for shard in manifest["shards"])
    assert [entry["documents"] for entry in manifest["inputs"]] == [len(OLD), len(NEW)]
    for shard in manifest["shards"]:
        for name, digest in shard["sha256"].items():
            assert sha256_of(out / name) == digest
    listing = {"manifest.json", "held_out.jsonl", "skipped.jsonl", *on_disk(out)}
    assert {path.name for path in out.iterdir()} == listing
    assert not (tmp_path / "out.tmp").exists()


def test_it_grows_again(config, tmp_path):
    run(config("a", OLD))
    sources = [documents(Source(tmp_path / "out"))]
    for number, name in enumerate("bcd"):
        manifest = run(config(name, make_texts(30, seed=number + 7), shard_tokens=200 + number))
        sources.append(documents(Source(tmp_path / "out")))
        assert sources[-1][: len(sources[-2])] == sources[-2]
        assert len(sources[-1]) > len(sources[-2])
    assert [work["first_input"] for work in manifest["appends"]] == [1, 2, 3]
    assert [work["settings"]["shard_tokens"] for work in manifest["appends"]] == [200, 201, 202]
    names = [shard["name"] for shard in manifest["shards"]]
    assert names == [f"shard-{number:05d}" for number in range(len(names))]


def test_a_grown_source_opens_as_it_ever_was(config, tmp_path):
    out = tmp_path / "out"
    manifests, known = [], []
    for name, texts in (("a", OLD), ("b", NEW), ("c", make_texts(30, seed=7))):
        manifests.append(run(config(name, texts)))
        source = Source(out)
        known.append((source.fingerprint, documents(source), source.block_tokens.tolist()))
    for manifest, (fingerprint, its_documents, blocks) in zip(manifests, known, strict=True):
        source = Source(out, fingerprint)
        assert source.fingerprint == fingerprint
        assert source.later_shards == len(manifests[-1]["shards"]) - len(manifest["shards"])
        assert (documents(source), source.block_tokens.tolist()) == (its_documents, blocks)
        assert source.manifest | {"skipped": 0} == manifest | {"skipped": 0}
    assert Source(out, "0" * 64).fingerprint == known[-1][0]

    # What an append has noted is no proof: the digests of the shards must lead there.
    forged = read_manifest(out)
    forged["shards"][0]["sha256"]["shard-00000.tokens"] = "0" * 64
    (out / "manifest.json").write_text(json.dumps(forged))
    for fingerprint, _, _ in known:
        source = Source(out, fingerprint)
        assert source.fingerprint == fingerprint_of(forged) != fingerprint
        assert source.later_shards == 0


def test_new_documents_are_no_near_copies_of_the_old_held_out_text(config, tmp_path):
    old = long_texts(40)
    (tmp_path / "questions.jsonl").write_bytes(json_lines(long_texts(10, seed=9)[8:]))
    run(config("a", old))
    new = long_texts(50)[40:]
    manifest = run(
        config(
            "b",
            [*map(changed, old), *map(changed, new)],
            decontaminate_against=[str(tmp_path / "questions.jsonl")],
            on_error="skip",
        )
    )
    near = sum(is_held_out(text, 0.2) for text in old)
    assert near
    assert manifest["skipped"][NEAR_HELD_OUT] == near
    assert manifest["skipped"][NEAR_AVOIDED] == 2  # words(8000, ...), words(9000, ...)
    assert manifest["appends"][0]["avoid"][0]["path"].endswith("questions.jsonl")


def test_what_was_avoided_is_avoided_again(config, tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_bytes(json_lines(["What is basalt?"]))
    run(config("a", OLD, decontaminate_against=[str(path)]))
    with pytest.raises(ValueError, match=r"^decontaminate_against: .*questions\.jsonl.*add that"):
        run(config("b", NEW))
    run(config("b", decontaminate_against=[str(path)]))


def test_bad_records_of_before_are_not_fatal_now(config, tmp_path):
    run(config("a", OLD))
    (tmp_path / "b.jsonl").write_bytes(json_lines(NEW))
    manifest = run(config("b", on_error="fail"))
    assert manifest["skipped"]["no field 'text'"] == 1
    with pytest.raises(ValueError, match="no field 'text'; correct the record"):
        run(config("c", make_texts(9, seed=3), on_error="fail"))


# Refusals


def test_what_does_not_go_with_the_source_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match=r"^append: .*out is not a prepared source"):
        run(config("b", NEW))
    assert not (tmp_path / "out.tmp").exists()
    run(config("a", OLD))
    before = on_disk(tmp_path / "out"), contents(tmp_path / "out")
    other = tmp_path / "other.model"
    other.write_bytes(train_bpe(make_texts(200), vocab_size=331))
    for field, value, both in (
        ("name", "other", "other, but .* was prepared with source"),
        ("held_out_fraction", 0.3, r"0\.3, but .* was prepared with 0\.2"),
        ("tokenizer", str(other), r"\w{8,}, but .* was prepared with \w{8,}"),
        ("inputs", [str(tmp_path / "*.jsonl")], r".*a\.jsonl' is in .*out already; leave it out"),
    ):
        with pytest.raises(ValueError, match=rf"^{field}: {both}"):
            run(config("b", **{field: value}))
    (tmp_path / "copy.jsonl").write_bytes((tmp_path / "a.jsonl").read_bytes())
    with pytest.raises(ValueError, match=r"^inputs: .*copy\.jsonl' is in .*out already"):
        run(config("copy"))
    with pytest.raises(ValueError, match="is prepared already"):
        run(config("b", append=False))
    (tmp_path / "none.jsonl").write_bytes(b"{}\n" + json_lines(OLD[-1:]).replace(b"text", b"t"))
    with pytest.raises(ValueError, match=r"no document is left .* 0 held out, skipped: 2 x no"):
        run(config("none"))
    assert (on_disk(tmp_path / "out"), contents(tmp_path / "out")) == before
    with (tmp_path / "out/held_out.jsonl").open("ab") as file:
        file.write(b'{"text": "x"}\n')
    with pytest.raises(ValueError, match=r"held_out\.jsonl has changed since"):
        run(config("b"))


def test_an_older_manifest_can_grow(config, tmp_path):
    """Sources prepared before there was anything to avoid or append."""
    run(config("a", OLD))
    path = tmp_path / "out/manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["appends"], manifest["avoid"]
    del manifest["settings"]["gram_units"], manifest["settings"]["fold_version"]
    path.write_text(json.dumps(manifest))
    assert len(run(config("b", NEW))["appends"]) == 1
    assert len(run(config("c", make_texts(20, seed=5)))["appends"]) == 2


# Interruptions


class Stopped(Exception):
    pass


def stop(*arguments, **options):
    raise Stopped


def test_another_append_tidies_up_after_one_cut_off(config, tmp_path, monkeypatch):
    run(config("a", OLD))
    with monkeypatch.context() as patch:
        patch.setattr(data.prepare.writer, "_clear_published", stop)
        with pytest.raises(Stopped):
            run(config("b", NEW))
    grown = Source(tmp_path / "out")
    manifest = run(config("c", make_texts(20, seed=3)))
    assert documents(Source(tmp_path / "out"))[: grown.documents] == documents(grown)
    assert len(skipped(config("c"))) == sum(manifest["skipped"].values())
    assert not (tmp_path / "out.tmp").exists()


def test_of_two_that_append_the_later_is_told(config, tmp_path, monkeypatch):
    run(config("a", OLD))
    config("b", NEW)
    with monkeypatch.context() as patch:

        def meanwhile(out, plan):
            patch.undo()
            monkeypatch.setattr(os, "fsync", lambda descriptor: None)
            run(config("c", make_texts(20, seed=3)))
            return data.prepare.writer.open_writer(out, plan)

        patch.setattr(data.prepare.documents, "open_writer", meanwhile)
        with pytest.raises(ValueError, match="another process has just appended"):
            run(config("b"))
    run(config("b"))


def test_what_the_new_manifest_names_is_durable_before_it_is_there(config, tmp_path, monkeypatch):
    run(config("a", OLD))
    out, synced, seen, replace = tmp_path / "out", [], [], Path.replace
    known = {path.name for path in out.iterdir()}

    def note(descriptor):
        status = os.fstat(descriptor)
        opened = Path(f"/dev/fd/{descriptor}")
        names = {path.name for path in opened.iterdir()} if opened.is_dir() else None
        synced.append((status.st_ino, names))

    def watch(path, target):
        if target == out / "manifest.json":
            new = [file for file in out.iterdir() if file.name not in known | {path.name}]
            assert len(new) == 2 * (len(read_manifest(out.with_name("out.tmp"))["shards"]) - shards)
            assert all((file.stat().st_ino, None) in synced for file in (*new, path))
            folder = [names for inode, names in synced if inode == out.stat().st_ino and names]
            assert any({file.name for file in new} <= names for names in folder)
            seen.append(path)
        return replace(path, target)

    shards = len(read_manifest(out)["shards"])
    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "replace", watch)
    run(config("b", NEW))
    assert seen


# The command
