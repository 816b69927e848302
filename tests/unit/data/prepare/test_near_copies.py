"""No training document nearly copies one that is held out or to be avoided."""

import random
import tracemalloc
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import data.prepare.chunks
import data.prepare.documents
import data.prepare.writer
from data.prepare.documents import PrepareConfig, prepare
from data.prepare.held_out import is_held_out, normalize, side_hash
from data.prepare.ngrams import ngram_hashes
from data.prepare.overlap_index import (
    NEAR_AVOIDED,
    NEAR_HELD_OUT,
    SAME_AS_AVOIDED,
    OverlapIndex,
    ProtectedFinder,
    write_index,
)
from data.prepare.writer import SourceWriter
from data.records.readers import Position, Record
from data.rows.shards import Source
from tests.helpers.draws import examples
from tests.unit.data.prepare.test_prepare import arrays, contents, json_lines, make_texts, skipped
from tokenizer.tokenizer import Tokenizer
from tokenizer.train import train_bpe

# Grams

UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "KHMER", "MYANMAR")


def slow_grams(text):
    """The grams of a text as tuples of strings, by the definition."""
    units, word = [], ""
    for letter in unicodedata.normalize("NFKC", text).casefold() + " ":
        if unicodedata.category(letter) in ("Mn", "Mc", "Me", "Cf"):
            continue
        alone = letter.isalnum() and unicodedata.name(letter).startswith(UNSPACED)
        if letter.isalnum() and not alone:
            word += letter
            continue
        units += [word] if word else []
        units += [letter] if alone else []
        word = ""
    return {tuple(units[n : n + 13]) for n in range(len(units) - 12)}


LETTERS = "abAß1٣иЯक한ﬁ岩石沉かカｶーㄅกำເກခក ကा \u0301\u200d\u00ad.,-_、。「\n\t🌋"
TEXTS = st.lists(st.sampled_from([*LETTERS, " ", "basalt ", "岩石"]), max_size=80).map("".join)


@examples(300)  # the first example builds a table
@given(TEXTS, TEXTS, TEXTS)
def test_grams_are_those_of_the_definition(one, two, three):
    texts = [one + two + one, two + three, one.upper() + " " + three, three + one + two]
    hashes = [ngram_hashes(normalize(text)) for text in texts]
    slow = [slow_grams(text) for text in texts]
    for some, expected in zip(hashes, slow, strict=True):
        assert len(some) == len(expected)
        assert (np.diff(some.astype(object)) > 0).all()
    everything = set().union(*slow)
    assert len(set().union(*(some.tolist() for some in hashes))) == len(everything)
    for a in range(4):
        for b in range(a):
            assert len(np.intersect1d(hashes[a], hashes[b])) == len(slow[a] & slow[b])


@given(st.text(max_size=60))
def test_grams_of_any_text(text):
    assert len(ngram_hashes(normalize(text))) <= max(0, len(normalize(text)) - 12)


@given(st.text(st.characters() | st.sampled_from("，！？：；（）　…～％．é\u0301"), max_size=40))
def test_normalizing_is_nfkc_and_casefold(text):
    assert normalize(text) == unicodedata.normalize("NFKC", text).casefold()


def test_marks_case_and_width_do_not_change_grams():
    text = "The Straße of 12 basalt columns, near 岩石 and 沉积物: how old is it, and why?"
    expected = ngram_hashes(normalize(text)).tolist()
    assert expected
    for copy in (
        text.upper(),
        text.replace(" ", "\n\n").replace(",", " — "),
        "「" + text.replace("basalt", "ｂａｓａｌｔ").replace("岩石", "岩 石。"),
        text.replace("columns", "col\u00adumns"),
    ):
        assert ngram_hashes(normalize(copy)).tolist() == expected


def test_thirteen_units_make_a_gram():
    words = [f"word{n}" for n in range(14)]
    for count, grams in ((12, 0), (13, 1), (14, 2)):
        assert len(ngram_hashes(normalize(" ".join(words[:count])))) == grams
        assert len(ngram_hashes(normalize("岩石沉积物的年代为何如此古老"[:count]))) == grams


def test_a_word_may_be_long():
    text = " ".join(["a" * 5000, *(f"{'b' * 5000}{n}" for n in range(12))])
    assert len(ngram_hashes(normalize(text))) == 1
    assert ngram_hashes(normalize(text)) != ngram_hashes(normalize(text.replace("a b", "c b")))


# The index


def protected(texts):
    lines = json_lines(texts).splitlines()
    records = [Record(Position(0, n, 0), line, True) for n, line in enumerate(lines, 1)]
    return [ProtectedFinder("text", 1.0)(records)] if records else []


def index_of(folder, held_out=(), avoided=()):
    write_index(folder / "index", protected(held_out), protected(avoided))
    return OverlapIndex(folder / "index")


def reason(index, text):
    normalized = normalize(text)
    return index.reason(text, normalized, side_hash(normalized))


def words(first, last, kind="w"):
    return " ".join(f"{kind}{n}" for n in range(first, last))


def test_more_than_half_of_the_training_document(tmp_path):
    index = index_of(tmp_path, [words(0, 1000)])
    # 24 units have 12 grams; n of them lie in the first n + 12.
    for shared, expected in ((5, None), (6, None), (7, NEAR_HELD_OUT), (12, NEAR_HELD_OUT)):
        text = f"{words(100, 112 + shared)} {words(0, 12 - shared, 'x')}"
        assert len(ngram_hashes(text)) == 12
        assert reason(index, text) == expected


def test_more_than_half_of_the_held_out_document(tmp_path):
    index = index_of(tmp_path, [words(0, 24), words(500, 1000)])
    for shared, expected in ((5, None), (6, None), (7, NEAR_HELD_OUT), (12, NEAR_HELD_OUT)):
        quoting = f"{words(0, 300, 'x')} {words(0, 12 + shared)} {words(300, 600, 'x')}"
        assert reason(index, quoting) == expected


def test_grams_of_several_documents_are_not_added_up(tmp_path):
    index = index_of(
        tmp_path, [f"{words(0, 20)} {words(0, 90, 'x')}", f"{words(20, 40)} {words(0, 90, 'y')}"]
    )
    # Eight grams from each, of 28: more than half together, less than half of one.
    assert reason(index, f"{words(0, 20)} {words(20, 40)}") is None


@pytest.mark.parametrize("seed", range(3))
def test_the_index_finds_what_brute_force_finds(tmp_path, seed):
    generator = random.Random(seed)
    sentences = [
        " ".join(generator.choices("abcdefgh", k=generator.randint(8, 20))) for _ in range(12)
    ]

    def text():
        return " ".join(generator.choices(sentences, k=generator.randint(1, 6)))

    held_out, avoided = [text() for _ in range(6)], [text() for _ in range(4)]
    index = index_of(tmp_path, held_out, avoided)
    found = set()
    for ours in (text() for _ in range(300)):
        grams, expected = slow_grams(ours), None
        for known, label in ((avoided, NEAR_AVOIDED), (held_out, NEAR_HELD_OUT)):
            shared = [(len(grams & slow_grams(theirs)), slow_grams(theirs)) for theirs in known]
            if any(2 * count > min(len(grams), len(theirs)) for count, theirs in shared if count):
                expected = label
        if normalize(ours) in map(normalize, avoided):
            expected = SAME_AS_AVOIDED
        assert reason(index, ours) == expected
        found.add(expected)
    assert found >= {None, NEAR_HELD_OUT, NEAR_AVOIDED}


def test_short_documents_to_avoid_are_compared_folded(tmp_path):
    index = index_of(tmp_path, avoided=["What is basalt?", "岩石"])
    assert reason(index, "what is BASALT") == SAME_AS_AVOIDED
    assert reason(index, "「岩 石」") == SAME_AS_AVOIDED
    assert reason(index, "what is basalts") is None
    assert reason(index_of(tmp_path), "what is basalt") is None


@pytest.mark.parametrize(
    ("avoided", "ours"),
    [
        ("Is 3 < 5?", "Is 3 != 5?"),
        ("7 + 3", "7 * 3"),
        ("-196", "196"),
        ("1.5", "15"),
        ("कल", "काल"),
        ("มา", "ม้า"),
        ("😀", "😢"),
        ("berlin -> Berlin", "Berlin -> berlin"),
    ],
)
def test_a_document_is_no_copy_of_one_that_means_something_else(tmp_path, avoided, ours):
    index = index_of(tmp_path, avoided=[avoided])
    assert reason(index, ours) is None
    assert reason(index, f"  {avoided} .") == SAME_AS_AVOIDED


def test_the_index_is_mapped(tmp_path):
    index_of(tmp_path, [words(0, 200_000)])
    size = (tmp_path / "index").stat().st_size
    ours = normalize(words(10, 300))
    ngram_hashes(ours)
    tracemalloc.start()
    assert OverlapIndex(tmp_path / "index").reason(ours, ours, 0) == NEAR_HELD_OUT
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 10


# In a source


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    path.write_bytes(train_bpe(make_texts(200), vocab_size=330))
    return path


@pytest.fixture
def make(tmp_path, tokenizer_path, monkeypatch):
    """A config for texts in a.jsonl."""
    monkeypatch.setattr(data.prepare.chunks, "CHUNK_RECORDS", 7)

    def config(texts=None, **changes):
        if texts is not None:
            (tmp_path / "a.jsonl").write_bytes(json_lines(texts))
        fields = {
            "name": "source",
            "inputs": [str(tmp_path / "a.jsonl")],
            "out": str(tmp_path / "out"),
            "tokenizer": str(tokenizer_path),
            "held_out_fraction": 0.2,
            "workers": 1,
        }
        return PrepareConfig(**(fields | changes))

    return config


def run(config):
    return prepare(config, progress=False)


def training(config):
    source, tokenizer = Source(config.out), Tokenizer.open(config.tokenizer)
    ids = (source.document(number).tolist() for number in range(source.documents))
    return [tokenizer.decode(document[1:-1]) for document in ids]


def long_texts(count=40, seed=5):
    generator = random.Random(seed)
    return [words(n * 1000, n * 1000 + generator.randint(30, 90)) for n in range(count)]


def changed(text):
    """A near copy on the training side of the split."""
    return next(copy for n in range(99) if not is_held_out(copy := f"{text} end {n}", 0.2))


def test_near_copies_are_left_out_counted_and_listed(make):
    texts = long_texts()
    copies = [changed(text) for text in texts]
    config = make([*copies, *texts], on_error="fail")  # before and after what they copy
    manifest = run(config)
    held_out = [text for text in texts if is_held_out(text, 0.2)]
    assert 2 < len(held_out) < 30
    assert list(Source(config.out).held_out()) == held_out
    expected = [c for c, t in zip(copies, texts, strict=True) if t not in held_out]
    assert training(config) == expected + [text for text in texts if text not in held_out]
    assert manifest["skipped"] == {NEAR_HELD_OUT: len(held_out)}
    lines = [n for n, text in enumerate(texts, 1) if text in held_out]
    path = config.inputs[0]
    assert skipped(config) == [
        {"file": path, "line": line, "reason": NEAR_HELD_OUT} for line in lines
    ]
    assert manifest["inputs"][0]["documents"] == 80


def test_near_copies_do_not_keep_bad_records_from_being_fatal(make, tmp_path, monkeypatch):
    texts = long_texts()
    make([*map(changed, texts), *texts])
    with (tmp_path / "a.jsonl").open("ab") as file:
        file.write(b"{}\n")
    monkeypatch.setattr(data.prepare.documents, "JOURNAL_SECONDS", 0.0)
    for _ in range(2):  # what was left out before is not taken for a bad record
        with pytest.raises(ValueError, match="no field 'text'; correct the record"):
            run(make(on_error="fail"))


def test_only_documents_that_are_read_count(make):
    texts = long_texts()
    copies = [changed(text) for text in texts]
    manifest = run(make([*copies, *texts], max_documents=len(copies)))
    assert not manifest["skipped"]
    assert manifest["documents"] == len(copies)


class Stopped(Exception):
    pass


@pytest.mark.parametrize(
    "place",
    ["data.prepare.documents._protected", "numpy.argsort", "data.prepare.writer.SourceWriter.save"],
)
def test_a_first_pass_cut_off_is_made_again_for_whoever_comes(make, tmp_path, monkeypatch, place):
    texts = long_texts()
    make([*texts, *map(changed, texts)])
    run(make(held_out_fraction=0.1, out=str(tmp_path / "reference")))

    def stop(*arguments, **options):
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(place, stop)
        with pytest.raises(Stopped):
            run(make(held_out_fraction=0.9))
    # No journal says what that index was for, so it is not taken for ours.
    run(make(held_out_fraction=0.1))
    assert contents(tmp_path / "out") == contents(tmp_path / "reference")


def test_a_first_pass_is_made_once(make, monkeypatch):
    texts = long_texts()
    config = make([*texts, *map(changed, texts)])
    add = SourceWriter.add

    def stop(draft, chunk):
        raise Stopped

    monkeypatch.setattr(SourceWriter, "add", stop)
    with pytest.raises(Stopped):
        run(config)
    monkeypatch.setattr(SourceWriter, "add", add)
    monkeypatch.setattr(data.prepare.documents, "write_index", stop)
    assert run(config)["skipped"]


# Avoiding


def test_no_training_document_copies_what_is_to_be_avoided(make, tmp_path):
    texts = [*long_texts(), "What is basalt?"]
    (tmp_path / "questions.jsonl").write_bytes(json_lines([texts[0], "what is BASALT", texts[1]]))
    avoid = [str(tmp_path / "questions*.jsonl")]
    config = make([changed(texts[0]), *texts], held_out_fraction=0.0, decontaminate_against=avoid)
    manifest = run(config)
    assert training(config) == texts[2:-1]
    assert manifest["skipped"] == {NEAR_AVOIDED: 1, SAME_AS_AVOIDED: 3}
    assert [entry["path"] for entry in manifest["avoid"]] == [str(tmp_path / "questions.jsonl")]


def test_what_is_avoided_belongs_to_the_work(make, tmp_path, monkeypatch):
    path = tmp_path / "questions.jsonl"
    path.write_bytes(json_lines(["What is basalt?"]))
    config = make(long_texts(), decontaminate_against=[str(path)])
    with monkeypatch.context() as patch:
        patch.setattr(SourceWriter, "finish", lambda draft: draft.save() or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(config)
    for changes in ({"decontaminate_against": []}, {"decontaminate_against": [str(path)]}):
        if changes["decontaminate_against"]:
            path.write_bytes(json_lines(["What is gneiss?"]))
        named = r"settings \(decontaminate_against .*questions\.jsonl\); remove"
        with pytest.raises(ValueError, match=named):
            run(make(**changes))
    path.write_bytes(json_lines(["What is basalt?"]))
    run(config)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'{"question": "x"}\n',
            r"decontaminate_against: .*questions\.jsonl:1: no field 'text'; correct this record",
        ),
        (None, r"^decontaminate_against: .*questions\.jsonl' matches no file"),
    ],
)
def test_what_cannot_be_avoided_is_fatal(make, tmp_path, content, message):
    path = tmp_path / "questions.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        run(make(long_texts(), decontaminate_against=[str(path)]))
    assert not Path(tmp_path / "out").exists()
    path.write_bytes(json_lines(["x"]))
    run(make(decontaminate_against=[str(path)]))  # what failed leaves nothing in the way


def test_held_out_text_of_another_source_can_be_avoided(make, tmp_path):
    texts = long_texts()
    run(make(texts, out=str(tmp_path / "one")))
    held_out = tmp_path / "one/held_out.jsonl"
    config = make(
        [*texts, *map(changed, texts)],
        held_out_fraction=0.0,
        decontaminate_against=[str(held_out)],
        out=str(tmp_path / "two"),
    )
    run(config)
    known = set(Source(tmp_path / "one").held_out())
    clean = [text for text in texts if text not in known]
    assert training(config) == [*clean, *map(changed, clean)]
    assert arrays(tmp_path / "two").keys() == arrays(tmp_path / "one").keys()
