"""No source trains on what another holds out: prepared so, or found out, or refused."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import scripts.check_sources
import scripts.prepare_data  # registers what conf/prepare_data.yaml names
from conf.suggest import CONF
from data.prepare.check_overlap import (
    NOTES,
    CheckSourcesConfig,
    check_sources,
    pairs_of,
    require_decontaminated,
)
from data.prepare.documents import PrepareConfig, prepare
from data.prepare.held_out import is_held_out
from data.prepare.overlap_index import NEAR_AVOIDED, SAME_AS_AVOIDED
from data.rows.shards import Source
from data.sample.corpus import SOURCES
from tests.unit.data.prepare.test_near_copies import changed, long_texts
from tests.unit.data.prepare.test_prepare import json_lines, make_texts
from tokenizer.tokenizer import Tokenizer
from tokenizer.train import train_bpe
from training.sources import open_sources

FRACTION = 0.2
ONE, TWO = long_texts(seed=5), long_texts(seed=6)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(train_bpe(make_texts(200), vocab_size=330))
    return str(path)


@pytest.fixture
def make(tmp_path, tokenizer):
    """Prepare a source from texts; `one` and `two` have no text in common."""

    def make(name, texts, **changes):
        path = tmp_path / f"{name}.{len(list(tmp_path.glob('*.jsonl')))}.jsonl"
        path.write_bytes(json_lines(texts))
        fields = {
            "name": name,
            "inputs": [str(path)],
            "out": str(tmp_path / name),
            "tokenizer": tokenizer,
            "held_out_fraction": FRACTION,
            "workers": 1,
        }
        prepare(PrepareConfig(**(fields | changes)), progress=False)
        return tmp_path / name

    return make


def held_out_of(texts):
    return [text for text in texts if is_held_out(text, FRACTION)]


# Texts of other sources differ in every word.
OTHERS = [text.replace("w", "v") for text in TWO]
THIRDS = [text.replace("w", "u") for text in TWO]


def composed(command, *arguments):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, list(arguments))


def run_command(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["check_sources", *arguments])
    scripts.check_sources.main()


def check(tokenizer, *folders, workers=1):
    sources = [*map(str, folders)]
    config = CheckSourcesConfig(sources=sources, tokenizer=tokenizer, workers=workers)
    pairs = check_sources(config, progress=False)
    return {(p.source.folder.name, p.other.folder.name): p.copies for p in pairs}


def known(*folders):
    pairs = pairs_of([Source(folder) for folder in folders])
    return {(p.source.folder.name, p.other.folder.name): p.copies for p in pairs}


def refusal(*folders):
    with pytest.raises(ValueError, match=r"^data\.sources") as error:
        require_decontaminated([Source(folder) for folder in folders], "t.model")
    return str(error.value)


def accepted(*folders):
    require_decontaminated([Source(folder) for folder in folders], "t.model")
    return True


def test_what_nobody_has_compared_is_refused_with_the_command(make, tokenizer):
    one, two = make("one", ONE), make("two", OTHERS)
    assert known(one, two) == {("one", "two"): None, ("two", "one"): None}
    command = f"python -m scripts.check_sources sources='[{one},{two}]' tokenizer=t.model"
    assert command in refusal(one, two)
    before = {path: path.read_bytes() for folder in (one, two) for path in folder.iterdir()}
    assert check(tokenizer, one, two) == {("one", "two"): [], ("two", "one"): []}
    assert accepted(one, two)
    after = {path: path.read_bytes() for folder in (one, two) for path in folder.iterdir()}
    assert after == before | {folder / NOTES: after[folder / NOTES] for folder in (one, two)}


def test_copies_are_found_by_number_and_refused(make, tokenizer):
    held_out = held_out_of(ONE)
    near = [changed(text) for text in held_out[:2]]
    one, two = make("one", ONE), make("two", [*OTHERS, *near])
    numbers = [Source(two).documents - 2, Source(two).documents - 1]
    expected = {("one", "two"): [], ("two", "one"): numbers}
    assert check(tokenizer, one, two) == known(one, two) == expected
    said = refusal(one, two)
    assert f"data.sources, {two} with {one}: training documents copy" in said
    assert str(two / NOTES) in said


def test_a_short_text_that_is_equal_after_folding_is_a_copy(make, tokenizer):
    short = next(t for n in range(99) if is_held_out(t := f"What is basalt {n}?", FRACTION))
    one = make("one", [*ONE, short])
    # Both sides follow from the same hash: only another share can put the copy into training.
    two = make("two", [short.upper(), *OTHERS], held_out_fraction=0.0)
    assert check(tokenizer, one, two) == {("two", "one"): [0]}


def test_the_command_that_mends_it_does(make, tokenizer, tmp_path):
    near = [changed(text) for text in held_out_of(ONE)]
    one = make("one", ONE)
    texts = [{"content": text} for text in (*OTHERS, *near)]
    (tmp_path / "own field.jsonl").write_text("".join(json.dumps(x) + "\n" for x in texts))
    two = make("two", [], inputs=[str(tmp_path / "own field.jsonl")], text_field="content")
    assert check(tokenizer, one, two)["two", "one"]
    with pytest.raises(ValueError, match=r"scripts\.prepare_data") as error:
        require_decontaminated([Source(one), Source(two)], tokenizer)
    python, _, module, *arguments = shlex.split(str(error.value).split("`")[1])
    assert (python, module) == ("python", "scripts.prepare_data")
    prepare(OmegaConf.to_object(composed("prepare_data", *arguments, "workers=1")), progress=False)
    mended = Path(f"{two}-decontaminated")
    assert Source(mended).manifest["skipped"] == {NEAR_AVOIDED: len(near)}
    # What is held out stays, and with it what is known of the others.
    assert list(Source(mended).held_out()) == list(Source(two).held_out())
    assert known(one, mended) == {
        ("one", "two-decontaminated"): [],
        ("two-decontaminated", "one"): [],
    }
    assert accepted(one, mended)


def test_notes_of_earlier_versions_are_read(make, tokenizer):
    one, two = make("one", ONE), make("two", OTHERS)
    found = check(tokenizer, one, two)
    for folder in (one, two):
        (folder / "overlap.json").rename(folder / "apart.json")
    assert known(one, two) == found
    three = make("three", THIRDS)
    check(tokenizer, one, two, three)
    assert {
        pair: copies for pair, copies in known(one, two, three).items() if "three" not in pair
    } == found


def test_a_source_that_avoided_the_other_needs_no_comparison(make):
    held_out = held_out_of(ONE)
    texts = [*OTHERS, changed(held_out[0]), held_out[1]]
    one = make("one", ONE)
    avoid = [str(one / "held_out.jsonl")]
    two = make("two", texts, decontaminate_against=avoid)
    assert Source(two).manifest["skipped"] == {NEAR_AVOIDED: 1}
    assert known(one, two) == {("one", "two"): None, ("two", "one"): []}
    three = make("three", texts, decontaminate_against=avoid, held_out_fraction=0.0)
    assert Source(three).manifest["skipped"] == {NEAR_AVOIDED: 1, SAME_AS_AVOIDED: 1}
    assert known(one, three) == {("three", "one"): []}  # nothing of its own is held out
    assert accepted(one, three)


def test_a_source_that_has_grown_is_known_as_far_as_it_avoided(make, tokenizer):
    one, two = make("one", ONE), make("two", OTHERS)
    assert check(tokenizer, one, two)["two", "one"] == []
    avoid = [str(one / "held_out.jsonl")]
    make("two", THIRDS, append=True, decontaminate_against=avoid)
    assert known(one, two) == {("one", "two"): [], ("two", "one"): []}
    copy = changed(held_out_of(ONE)[0])
    # Where nothing is avoided, what was known before is not enough.
    three = make("three", THIRDS)
    assert check(tokenizer, one, three)["three", "one"] == []
    before = Source(three).documents
    make("three", [copy], append=True)
    assert known(one, three)["three", "one"] is None
    assert check(tokenizer, one, three)["three", "one"] == [before]
    # And what was found does not go away with what avoids it later.
    make(
        "three",
        [text.replace("v", "t") for text in OTHERS],
        append=True,
        decontaminate_against=avoid,
    )
    assert known(one, three)["three", "one"] == [before]


def test_what_is_known_is_not_read_again(make, tokenizer, monkeypatch):
    one, two, three = make("one", ONE), make("two", OTHERS), make("three", THIRDS)
    check(tokenizer, one, two)
    read = []
    document = Source.document
    monkeypatch.setattr(Source, "document", lambda s, n: read.append(s.folder) or document(s, n))
    check(tokenizer, one, two)
    assert not read
    check(tokenizer, one, two, three)
    assert set(read) == {one, two, three}
    assert len(read) == sum(Source(folder).documents for folder in (one, two, three))
    read.clear()
    assert accepted(one, two, three)
    assert not read


def test_the_same_text_under_two_names_is_apart(make):
    one, again = make("one", ONE), make("again", ONE)
    assert known(one, again) == {("one", "again"): [], ("again", "one"): []}


def test_a_run_that_was_begun_goes_on_and_a_new_one_is_refused(make, tokenizer, tmp_path):
    make("one", ONE)
    make("two", OTHERS)
    opened = Tokenizer.open(tokenizer)
    folders = {"one": "one", "two": "two"}
    with pytest.raises(ValueError, match=r"two with .*one: the overlap .* has not been checked"):
        open_sources(str(tmp_path), folders, opened, {})
    recorded = {name: Source(tmp_path / name).fingerprint for name in folders}
    assert open_sources(str(tmp_path), folders, opened, recorded).keys() == folders.keys()
    assert open_sources(str(tmp_path), {"one": "one"}, opened, {})


def test_the_sample_is_apart_when_it_is_built(sample):
    sources = [Source(sample / name) for name in SOURCES]
    assert [pair.copies for pair in pairs_of(sources)] == 20 * [[]]
    assert not list(sample.glob(f"*/{NOTES}"))  # prepared so, not compared afterwards


@pytest.mark.parametrize("notes", ["", "[]", '{"a": []}', '{"a": {"b": ["1"]}}', '{"a": {"b": 1}}'])
def test_damaged_notes_are_named(make, notes):
    one, two = make("one", ONE), make("two", OTHERS)
    (two / NOTES).write_text(notes)
    with pytest.raises(ValueError, match=r"two/overlap\.json is damaged; remove it"):
        known(one, two)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one, two: {"sources": [one]}, "sources: .*name two folders or more"),
        (lambda one, two: {"sources": [one, two, one]}, "each once"),
        (lambda one, two: {"sources": [one, f"{two}/x"]}, "x is not a prepared source"),
        (lambda one, two: {"tokenizer": ""}, "tokenizer: empty"),
        (lambda one, two: {"tokenizer": f"{two}/x"}, "two/x"),
        (lambda one, two: {"workers": -1}, "workers: -1; it must be >= 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(make, tokenizer, change, message):
    one, two = make("one", ONE), make("two", OTHERS)
    asked = {"sources": [str(one), str(two)], "tokenizer": tokenizer}
    with pytest.raises(ValueError, match=message):
        check_sources(CheckSourcesConfig(**(asked | change(str(one), str(two)))), progress=False)


def test_other_tokenizers_texts_and_folders_are_refused(make, tokenizer, tmp_path, monkeypatch):
    one, two = make("one", ONE), make("two", OTHERS)
    other = tmp_path / "other.model"
    other.write_bytes(train_bpe(make_texts(200), vocab_size=340))
    with pytest.raises(ValueError, match=r"one was not prepared with .*other\.model"):
        check(str(other), one, two)
    (one / "held_out.jsonl").write_text('{"text": "another"}\n')
    with pytest.raises(ValueError, match=r"one/held_out\.jsonl has changed since"):
        check(tokenizer, one, two)
    shutil.rmtree(one)
    one = make("one", ONE)

    def full(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("data.prepare.check_overlap.write_json", full)
    with pytest.raises(ValueError, match=r"overlap\.json cannot be written .*Read-only"):
        check(tokenizer, one, two)


def test_the_program_tells_and_ends_as_it_found(make, tokenizer, monkeypatch, capsys):
    one, two = make("one", ONE), make("two", [*OTHERS, *map(changed, held_out_of(ONE))])
    arguments = (f"sources=[{one},{two}]", f"tokenizer={tokenizer}", "workers=1")
    with pytest.raises(SystemExit) as end:
        run_command(monkeypatch, *arguments)
    assert end.value.code == 1
    out, count = capsys.readouterr().out, len(held_out_of(ONE))
    assert (
        f"{two}: {count} of {Source(two).documents} documents copy held-out documents of {one}"
        in out
    )
    assert f"{one}: 0 of {Source(one).documents} documents copy held-out documents of {two}" in out
    assert f"and {count - 3} more, in {two}/overlap.json" in out
    assert f"out={two}-decontaminated" in out
    three = make("three", THIRDS)
    run_command(monkeypatch, f"sources=[{one},{three}]", *arguments[1:])
    capsys.readouterr()
    with pytest.raises(SystemExit, match=r"^error: sources: must be given$"):
        run_command(monkeypatch, *arguments[1:])
    assert capsys.readouterr().err.endswith(f"{scripts.check_sources.__doc__.strip()}\n\n")
