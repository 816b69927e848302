"""Preparing conversations: what is kept, what is rejected, and nothing by halves."""

import fcntl
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from data.prepare.conversations import (
    NO_ANSWER_LEFT,
    NOTHING_TO_LEARN,
    SAME_TEXT,
    TOO_LONG,
    PrepareConversationsConfig,
    prepare_conversations,
    text_of,
)
from data.prepare.held_out import is_held_out, letters_and_digits, normalize
from data.records.chat_formats import NO_ANSWER, Conversation, read_conversations
from data.rows.conversations import Conversations
from data.rows.shards import Source
from data.rows.sources import open_source
from storage.checksum import sha256_of
from tests.helpers.chat_folders import FAMILIES, VICUNA, sentencepiece_folder
from tokenizer.chat import Message, encode_conversation, encode_prompt, template_of
from tokenizer.tokenizer import Tokenizer
from training.sources import check_prepared_with

NO_CONVERSATION = "no conversation under the keys 'x'; fields= names its columns"


def question_and_answer(question, answer, **fields):
    return {"instruction": question, "output": answer} | fields


def many(count):
    return [
        question_and_answer(f"What is {n} plus {n}?", f"It is {2 * n}." + " So." * (n % 7))
        for n in range(count)
    ]


@pytest.fixture
def make(tmp_path, sample):
    """Records, as a .json or .jsonl file, and how to prepare them."""

    def make(records, file="a.json", **fields):
        path = tmp_path / file
        if isinstance(records, bytes):
            path.write_bytes(records)
        elif file.endswith(".json"):
            path.write_text(json.dumps(records))
        else:
            path.write_text("".join(json.dumps(record) + "\n" for record in records))
        options = {
            "name": "sft",
            "inputs": [str(path)],
            "out": str(tmp_path / "out"),
            "tokenizer": str(sample / "tokenizer"),
            "max_tokens": 120,
            "held_out_fraction": 0.0,
        }
        return PrepareConversationsConfig(**options | fields)

    return make


def messages_in(entry):
    assert isinstance(entry.conversation, Conversation)
    return entry.conversation.messages


def run(config):
    return prepare_conversations(config, progress=False)


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def skipped(config):
    lines = (Path(config.out) / "skipped.jsonl").read_text().splitlines()
    return [(place["line"], place["reason"]) for place in map(json.loads, lines)]


def answers(source, tokenizer, number):
    """The text of each run of supervised tokens of a conversation."""
    ids, supervised = source.document(number), source.supervised(number)
    borders = np.flatnonzero(np.diff(supervised, prepend=False, append=False))
    return [
        tokenizer.decode(ids[start:stop].tolist())
        for start, stop in zip(borders[::2], borders[1::2], strict=True)
    ]


def test_conversations_are_stored_as_they_are_encoded(make):
    records = [
        *many(20),
        question_and_answer("and?", "c", history=[["one", "a"], ["two", "b"]], system="Be brief."),
    ]
    config = make(records)
    manifest = run(config)
    source, tokenizer = Conversations(config.out), Tokenizer.open(config.tokenizer)
    entries = list(read_conversations(config.inputs))
    assert source.documents == manifest["conversations"] == len(entries) == 21
    for number, entry in enumerate(entries):
        expected = encode_conversation(tokenizer, messages_in(entry))
        assert source.document(number).tolist() == expected.ids
        assert source.supervised(number).tolist() == expected.supervised
        assert source.lengths[number] == len(expected.ids)
        said = [m.content for m in messages_in(entry) if m.role == "assistant"]
        assert answers(source, tokenizer, number) == said
    assert source.tokens == manifest["tokens"] == source.lengths.sum()
    total = sum(int(source.supervised(n).sum()) for n in range(source.documents))
    assert manifest["supervised_tokens"] == total


def test_everything_but_bos_can_be_supervised(make):
    config = make(many(3), train_on="all")
    manifest = run(config)
    assert manifest["supervised_tokens"] == manifest["tokens"] - 3
    assert manifest["settings"]["train_on"] == "all"


def test_the_manifest_says_what_was_made(make):
    config = make([*many(200), {"x": 1}, many(1)[0]], "a.jsonl", held_out_fraction=0.1)
    manifest = run(config)
    out = Path(config.out)
    assert manifest == json.loads((out / "manifest.json").read_text())
    assert {path.name for path in out.iterdir()} == {
        *("manifest.json", "tokens", "supervised", "stops", "held_out.jsonl", "skipped.jsonl")
    }
    assert manifest["kind"] == "conversations"
    held_out = manifest["held_out"]["conversations"]
    assert manifest["conversations"] + held_out == 200
    assert manifest["rejected"] == {
        NO_CONVERSATION: 1,
        SAME_TEXT: 1,
    }
    assert skipped(config) == [
        (201, NO_CONVERSATION),
        (202, SAME_TEXT),
    ]
    path = config.inputs[0]
    assert manifest["inputs"] == [
        {"path": path, "sha256": sha256_of(Path(path)), "records": 202, "conversations": 201}
    ]
    assert manifest["files"] == {
        name: sha256_of(out / name) for name in ("tokens", "supervised", "stops")
    }
    tokenizer = Tokenizer.open(config.tokenizer)
    assert manifest["tokenizer"] == {
        "fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "bos_id": tokenizer.bos_id,
        "eos_id": tokenizer.eos_id,
    }
    source = open_source(out)
    assert isinstance(source, Conversations)
    assert source.digests == manifest["files"]
    assert source.held_out_documents == held_out
    assert source.later_shards == 0


def test_the_hash_of_the_text_decides_what_is_held_out(make, tmp_path):
    config = make(many(300), held_out_fraction=0.1)
    run(config)
    source = Conversations(config.out)
    held_out = list(source.held_out())
    assert 10 < len(held_out) < 60
    assert all(isinstance(message, Message) for messages in held_out for message in messages)
    everything = [messages_in(entry) for entry in read_conversations(config.inputs)]
    assert held_out == [m for m in everything if is_held_out(text_of(m[:2]), 0.1)]
    # The file can be prepared in turn, and holds the same.
    again = replace(
        config,
        inputs=[str(Path(config.out) / "held_out.jsonl")],
        out=str(tmp_path / "again"),
        held_out_fraction=0.0,
    )
    assert run(again)["conversations"] == len(held_out)


def test_of_several_with_the_same_messages_the_first_is_kept(make):
    records = [
        question_and_answer("Name it!", "Caf\u00e9"),
        {
            "conversations": [
                {"from": "human", "value": "Name it!"},
                {"from": "gpt", "value": "Cafe\u0301"},
            ]
        },
        question_and_answer("Name", "it!\nCaf\u00e9"),
        question_and_answer("Name it!", "Caf\u00e9", system="Be brief."),
        question_and_answer("Name it!", "Caf\u00e9"),
    ]
    config = make(records)
    assert run(config)["conversations"] == 3
    assert skipped(config) == [(1, SAME_TEXT), (4, SAME_TEXT)]


DIFFERENT = [
    ("Is 3 < 5?", "Yes", "Is 3 != 5?", "Yes"),
    ("Compute 7 + 3", "10", "Compute 7 * 3", "10"),
    ("😀", "🙂", "😢", "🤗"),
    ("Which operator is it?", "&", "Which operator is it?", "&&"),
    ("Set x and 2 in LaTeX", "$x^2$", "Set x and 2 in LaTeX", "$x_2$"),
    ("Half of 30?", "1.5", "Half of 30?", "15"),
    ("Where does nitrogen boil?", "-196", "Where does nitrogen boil?", "196"),
    ("Indent it", "if a:\n    b", "Indent it", "if a:\nb"),
    ("Fix capitals: berlin", "Berlin", "Fix capitals: Berlin", "berlin"),
    ("Fix punctuation: yes no", "Yes, no.", "Fix punctuation: yes no", "Yes. No."),
    ("अर्थ बताओ: कल", "दिन", "अर्थ बताओ: काल", "दिन"),
    ("แปล: มา", "come", "แปล: ม้า", "horse"),
    ("ترجم: عَلِم", "know", "ترجم: عَلَم", "know"),
    ("Name it!", "Loess", "name  it", "loess."),
]


@pytest.mark.parametrize(("question", "answer", "other_question", "other_answer"), DIFFERENT)
def test_different_examples_are_all_kept(make, question, answer, other_question, other_answer):
    records = [
        question_and_answer(question, answer),
        question_and_answer(other_question, other_answer),
    ]
    config = make([*records, *records])
    assert run(config)["conversations"] == 2
    assert skipped(config) == [(2, SAME_TEXT), (3, SAME_TEXT)]


def test_a_drill_of_operators_loses_nothing(make):
    records = [
        question_and_answer(f"Is {a} {op} {b}?", str(eval(f"{a} {op} {b}")))
        for a in range(-2, 3)
        for b in range(-2, 3)
        for op in ("<", ">", "<=", ">=", "==", "!=")
    ]
    assert run(make(records))["conversations"] == len(records) == 150


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_copies_that_were_retyped_are_on_one_side(make, fraction):
    copies = [
        lambda text: text,
        str.upper,
        lambda text: text.replace(" ", "\n\n "),
        lambda text: f"“{text.rstrip('.?')}” …",
    ]
    records = [
        question_and_answer(copy(record["instruction"]), copy(record["output"]))
        for record in many(60)
        for copy in copies
    ]
    config = make(records, held_out_fraction=fraction)
    assert run(config)["rejected"] == {}
    held_out = Counter(
        letters_and_digits(normalize(text_of(messages)))
        for messages in Conversations(config.out).held_out()
    )
    assert len(held_out) > 2
    assert set(held_out.values()) == {len(copies)}


@pytest.mark.parametrize("overlong", ["reject", "truncate"])
def test_the_longest_that_fits_and_the_shortest_that_does_not(make, sample, overlong):
    tokenizer = Tokenizer.open(sample / "tokenizer")
    conversation = [Message("user", "Why?"), Message("assistant", "Since it is so and not so.")]
    size = len(encode_conversation(tokenizer, conversation).ids)
    record = question_and_answer(*(message.content for message in conversation))
    prompt = len(encode_prompt(tokenizer, conversation[:1]))
    other = question_and_answer("Why?", "So.")
    for max_tokens in (size, size - 1, prompt + 1, prompt):
        config = make([record, other], max_tokens=max_tokens, overlong=overlong)
        config = replace(config, out=f"{config.out}-{max_tokens}")
        if max_tokens == prompt or (overlong == "reject" and max_tokens == prompt + 1):
            with pytest.raises(ValueError, match="no conversation is left for training"):
                run(config)
            continue
        manifest = run(config)
        source = Conversations(config.out)
        if max_tokens == size:
            assert (source.lengths[0], manifest["truncated"]) == (size, 0)
        elif overlong == "reject":
            assert manifest["rejected"] == {TOO_LONG: 1}
        else:
            assert source.lengths[0] == max_tokens
            assert manifest["truncated"] == (1 if max_tokens == size - 1 else 2)
            assert source.supervised(0).sum() == max_tokens - prompt >= 1
            assert source.document(0)[-1] != tokenizer.eos_id


def test_what_has_no_answer_within_the_limit_is_rejected(make):
    config = make([question_and_answer("so " * 300, "a"), *many(2)], overlong="truncate")
    assert run(config)["rejected"] == {NO_ANSWER_LEFT: 1}


def test_bad_records_are_fatal_if_asked_and_what_is_left_out_is_not(make):
    fine = [*many(3), many(1)[0], question_and_answer("q", "so " * 300)]
    manifest = run(make(fine, on_error="fail"))
    assert manifest["rejected"] == {SAME_TEXT: 1, TOO_LONG: 1}
    bad = make([*many(3), {"x": 1}], on_error="fail", out=f"{make([]).out}2")
    with pytest.raises(ValueError, match=r"a\.json:3: no conversation.*; correct the record"):
        run(bad)
    assert not Path(bad.out).exists()


def test_marked_answers_are_context_in_training_and_in_held_out_text(make):
    records = [
        {
            "messages": [
                {"role": "user", "content": f"What is {n} plus {n}?"},
                {"role": "assistant", "content": "Nobody knows.", "train": False},
                {"role": "user", "content": "Think!"},
                {"role": "assistant", "content": f"It is {2 * n}."},
            ]
        }
        for n in range(40)
    ]
    config = make(records, held_out_fraction=0.3)
    run(config)
    source, tokenizer = Conversations(config.out), Tokenizer.open(config.tokenizer)
    for number in range(source.documents):
        (answer,) = answers(source, tokenizer, number)
        assert answer.startswith("It is ")
    held_out = list(source.held_out())
    assert len(held_out) > 4
    assert all([m.train for m in messages] == [True, False, True, True] for messages in held_out)
    for messages, encoded in zip(held_out, source.encode_held_out(tokenizer), strict=True):
        assert encoded == encode_conversation(tokenizer, messages)
        assert sum(encoded.supervised) == len(tokenizer.encode(messages[3].content)) + 1


@pytest.mark.parametrize("train_on", ["assistant", "all"])
def test_a_conversation_without_anything_to_learn_is_left_out(make, train_on):
    marked = [
        {"role": role, "content": content, "weight": 0}
        for role, content in (("user", "Why?"), ("assistant", "So."))
    ]
    config = make([{"messages": marked}, *many(3)], on_error="fail", train_on=train_on)
    manifest = run(config)
    assert manifest["rejected"] == {NOTHING_TO_LEARN: 1}
    # What differs in its marks is another example.
    marked[0].pop("weight")
    other = make([{"messages": marked}, question_and_answer("Why?", "So.")], train_on="all")
    assert run(replace(other, out=f"{other.out}2"))["conversations"] == 2


def test_what_was_left_off_or_passed_over_is_counted(make):
    said = [("user", "q"), ("assistant", "a"), ("user", "Thanks!")]
    turns = [{"role": role, "content": text, "name": "x"} for role, text in said]
    records = [{"messages": turns, "id": 1}, question_and_answer("r", "b", id=2), {"x": 1}]
    manifest = run(make(records))
    assert manifest["left_off"] == {NO_ANSWER: 1}
    assert manifest["passed_over"] == {"id": 2, "name (of messages)": 1}


def test_columns_of_a_user_and_keys_to_pass_over(make):
    records = [{"frage": "q", "antwort": "a", "bild": "x", "images": ["x"]}]
    fields = {"prompt": "frage", "answer": "antwort"}
    manifest = run(make(records, fields=fields, ignore=["images"]))
    assert manifest["conversations"] == 1
    assert manifest["passed_over"] == {"bild": 1, "images": 1}
    assert manifest["settings"]["fields"] == fields
    assert manifest["settings"]["ignore"] == ["images"]


@pytest.mark.parametrize(
    ("share", "fails"), [(0.0, True), (0.49, True), (0.5, False), (1.0, False)]
)
def test_more_rejected_records_than_allowed_are_an_error(make, share, fails):
    bad = [{"x": 1}, {"x": 2}, question_and_answer("q", ""), question_and_answer("q", "so " * 300)]
    config = make([*many(4), *bad], max_rejected=share)
    if not fails:
        assert run(config)["conversations"] == 4
        return
    with pytest.raises(ValueError, match=r"^max_rejected: 4 of 8 records .*: 2 x no conversation"):
        run(config)
    assert not list(Path(config.out).parent.glob("out*"))


def test_empty_lines_are_no_rejected_records(make):
    config = make(b'{"prompt": "q", "completion": "a"}\n\n\n\n', "a.jsonl", max_rejected=0.0)
    assert run(config)["conversations"] == 1


BAD = [
    (b"", "a.jsonl", {}, "no conversation is left for training; 0 held out, rejected: none"),
    (b"{}\n", "a.jsonl", {}, "rejected: 1 x no conversation under the keys"),
    ([], "a.json", {}, "no conversation is left"),
    (b"{}", "a.json", {}, r"a\.json: not an array"),
    (b"", "a.json", {}, r"a\.json: not JSON"),
    (b"x", "a.txt", {}, r"a\.txt' is in no known format; .*\.json, .*\.jsonl, "),
    (json.dumps(many(4)).encode(), "a.jsonl", {}, r"one array of records.*name it \.json"),
    (b"a,b\n", "a.csv", {}, r"write the rows as \.jsonl"),
    (many(4), "a.json", {"inputs": ["nothing-*.json"]}, "matches no file"),
    (many(4), "a.json", {"held_out_fraction": 0.999999}, "4 held out"),
    (many(4), "a.json", {"tokenizer": "nowhere"}, "nowhere is not a tokenizer"),
    (many(4), "a.json", {"max_tokens": 5}, f"4 x {TOO_LONG}"),
]


@pytest.mark.parametrize(("content", "name", "fields", "message"), BAD)
def test_bad_inputs(make, content, name, fields, message):
    config = make(content, name, **fields)
    with pytest.raises(ValueError, match=message):
        run(config)
    assert not list(Path(config.out).parent.glob("out*"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a/b"),
        ("inputs", []),
        ("out", ""),
        ("tokenizer", ""),
        ("max_tokens", 1),
        ("overlong", "split"),
        ("train_on", "user"),
        ("held_out_fraction", 1.0),
        ("on_error", "warn"),
        ("max_rejected", 1.5),
        ("max_rejected", float("nan")),
        ("fields", {"frage": "prompt"}),
        ("ignore", [""]),
        ("roles", {"doctor": "user"}),
        ("show", -1),
    ],
)
def test_config_names_the_bad_field(make, field, value):
    with pytest.raises(ValueError, match=f"^{field}: "):
        make([], **{field: value})


def test_what_exists_is_not_touched(make):
    config = make(many(5))
    run(config)
    before = contents(config.out)
    with pytest.raises(ValueError, match="is prepared already"):
        run(config)
    assert contents(config.out) == before
    other = replace(config, out=f"{config.out}2")
    Path(other.out).mkdir()
    with pytest.raises(ValueError, match="exists and is not a prepared source"):
        run(other)


def test_unfinished_work_on_documents_is_not_touched(make):
    config = make(many(5))
    folder = Path(f"{config.out}.tmp")
    folder.mkdir()
    (folder / "journal.json").write_text("{}")
    with pytest.raises(ValueError, match="unfinished work of kind=documents"):
        run(config)
    assert (folder / "journal.json").exists()


def test_one_process_at_a_time(make):
    config = make(many(5))
    folder = Path(f"{config.out}.tmp")
    folder.mkdir()
    with (folder / "held_out.jsonl").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process is preparing"):
            run(config)
    run(config)


def test_inputs_that_change_while_they_are_read_are_refused(make, monkeypatch):
    config = make(many(5))

    def changing(paths, columns):
        yield from read_conversations(paths, columns)
        Path(paths[0]).write_text("[]")

    monkeypatch.setattr("data.prepare.conversations.read_conversations", changing)
    with pytest.raises(ValueError, match=r"a\.json changed during the reading"):
        run(config)
    assert not Path(config.out).exists()


def test_one_kind_is_not_taken_for_the_other(make, sample):
    config = make(many(5))
    run(config)
    with pytest.raises(ValueError, match="a source of conversations, and one of documents"):
        Source(config.out)
    with pytest.raises(ValueError, match="a source of documents, and one of conversations"):
        Conversations(sample / "geo_en")
    assert isinstance(open_source(sample / "geo_en"), Source)
    with pytest.raises(ValueError, match="not a prepared source"):
        open_source(sample / "nothing")


@pytest.mark.parametrize("name", ["tokens", "supervised", "stops"])
def test_damaged_files_are_refused(make, name):
    config = make(many(5))
    run(config)
    path = Path(config.out) / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{name}: .* bytes, but the manifest"):
        Conversations(config.out)
    path.unlink()
    with pytest.raises(ValueError, match=f"{name}: missing"):
        Conversations(config.out)


def test_a_missing_held_out_file_is_named(make):
    config = make(many(5))
    run(config)
    (Path(config.out) / "held_out.jsonl").unlink()
    with pytest.raises(ValueError, match=r"held_out\.jsonl: missing"):
        list(Conversations(config.out).held_out())


def test_the_fingerprint_follows_what_training_reads(make, tmp_path):
    config = make(many(30))
    fingerprints = set()
    for number, fields in enumerate(
        ({}, {"train_on": "all"}, {"held_out_fraction": 0.3}, {"max_tokens": 36})
    ):
        config = replace(config, out=str(tmp_path / f"f{number}"), **fields)
        run(config)
        fingerprints.add(Conversations(config.out).fingerprint)
    assert len(fingerprints) == 4
    same = replace(make(many(30)), name="other", out=str(tmp_path / "same"))
    run(same)
    assert Conversations(same.out).fingerprint == Conversations(tmp_path / "f0").fingerprint


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "conversations"), [("alpaca_en_demo", 1000), ("geo_glossary_faq_en", 383)]
)
def test_real_files(make, shared, name, conversations):
    config = make(
        [],
        inputs=[str(shared / "sft" / f"{name}.json")],
        tokenizer=str(shared / "tokenizers" / "mistral-7b-v0.1.tokenizer.model"),
        max_tokens=512,
        held_out_fraction=0.02,
    )
    manifest = run(config)
    rejected = sum(manifest["rejected"].values())
    held_out = manifest["held_out"]["conversations"]
    assert manifest["conversations"] + held_out + rejected == conversations
    assert set(manifest["rejected"]) <= {SAME_TEXT, TOO_LONG}
    assert 0.5 < manifest["supervised_tokens"] / manifest["tokens"] < 1


def test_a_question_and_its_answer_are_on_one_side_whatever_stands_around_them(make):
    records = many(200)
    told = [{"system": f"You are teacher {n}.", **record} for n, record in enumerate(records)]
    config = make([*records, *told], "a.jsonl", held_out_fraction=0.1)
    manifest = run(config)
    assert manifest["rejected"] == {}
    held_out = [[m for m in c if m.role != "system"] for c in Conversations(config.out).held_out()]
    assert len(held_out) > 10
    assert all(held_out.count(messages) == 2 for messages in held_out)


# ---- chat templates of folders


def test_the_folders_template_is_what_is_prepared(make, tmp_path):
    family, end = FAMILIES["zephyr"]
    folder = family(tmp_path / "zephyr")
    manifest = run(config := make(many(5), tokenizer=str(folder)))
    source, theirs = Conversations(config.out), AutoTokenizer.from_pretrained(folder)
    assert manifest["chat_template"] == template_of(Tokenizer.open(folder)).digest
    for number, entry in enumerate(read_conversations(config.inputs)):
        dicts = [message.as_dict() for message in messages_in(entry)]
        whole = theirs.apply_chat_template(dicts, return_dict=False)
        asked = theirs.apply_chat_template(dicts[:1], add_generation_prompt=True, return_dict=False)
        last = len(whole) - whole[::-1].index(theirs.convert_tokens_to_ids(end))
        assert source.document(number).tolist() == whole
        expected = [len(asked) <= place < last for place in range(len(whole))]
        assert source.supervised(number).tolist() == expected


def test_another_template_than_the_prepared_one_is_refused(make, tmp_path):
    folder = FAMILIES["zephyr"][0](tmp_path / "zephyr")
    run(config := make(many(5), tokenizer=str(folder)))
    source, ours = Conversations(config.out), Tokenizer.open(folder)
    check_prepared_with("qa", source, ours)
    other = ours.with_templates({"default": VICUNA})
    with pytest.raises(ValueError, match=r"data\.sources\.qa: .*another chat template"):
        check_prepared_with("qa", source, other)
    with pytest.raises(ValueError, match=r"data\.sources\.qa: .*another chat template"):
        check_prepared_with("qa", source, ours.with_templates({}))


def test_a_source_without_a_record_of_its_template_has_the_first_format(make, tmp_path):
    folder = sentencepiece_folder(tmp_path / "base")
    run(config := make(many(5), tokenizer=str(folder)))
    manifest = Path(config.out) / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["chat_template"]
    manifest.write_text(json.dumps(content))
    source, ours = Conversations(config.out), Tokenizer.open(folder)
    check_prepared_with("qa", source, ours)
    with pytest.raises(ValueError, match="another chat template"):
        check_prepared_with("qa", source, ours.with_templates({"default": VICUNA}))


def test_a_template_without_exact_turns_is_refused_before_work(make, tmp_path):
    source = "{% for m in messages %}{{ m.content | reverse }}{{ eos_token }}{% endfor %}"
    folder = sentencepiece_folder(tmp_path / "reversed", source)
    config = make(many(3), tokenizer=str(folder))
    with pytest.raises(ValueError, match=r"messages\[1\] .*reversed.*cannot be trained on"):
        run(config)
    assert not Path(config.out).exists()
    assert not Path(f"{config.out}.tmp").exists()


def test_conversations_that_a_template_refuses_are_listed(make, tmp_path):
    folder = FAMILIES["gemma"][0](tmp_path / "gemma")
    records = [*many(2), question_and_answer("why?", "so", system="Be brief."), *many(4)[2:]]
    manifest = run(config := make(records, tokenizer=str(folder)))
    reason = "the chat template refuses the messages"
    assert manifest["rejected"] == {reason: 1}
    assert manifest["conversations"] == 4
    assert skipped(config) == [(2, reason)]
    listed = json.loads((Path(config.out) / "skipped.jsonl").read_text())
    assert "System role not supported" in listed["detail"]
    stopped = make(records, tokenizer=str(folder), on_error="fail", out=str(tmp_path / "other"))
    with pytest.raises(ValueError, match=r":2: messages\[0\] \(system\).*System role not support"):
        run(stopped)
