"""Rows of conversations: each whole, once an epoch, the same on any number of ranks."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.prepare.conversations import PrepareConversationsConfig, prepare_conversations
from data.rows.conversations import ConversationRows, Conversations
from data.rows.curriculum import Curriculum
from data.rows.curriculum_config import CurriculumConfig, Replay, Stage
from data.rows.loader import Loader
from data.rows.sources import open_source
from data.rows.trace import Trace
from model.documents import Documents
from model.labels import IGNORE_INDEX
from tests.helpers.toy import toy_config, toy_model
from tokenizer.tokenizer import Tokenizer

ROW_LENGTH, ROWS_PER_STEP, SEED = 96, 5, 3


def records(count, seed=0):
    draw = np.random.default_rng(seed)
    for number in range(count):
        question = f"Question {seed} {number}: what is {number} plus one?"
        history = [[f"And before {number}?", "so " * int(draw.integers(1, 5))]]
        yield {
            "instruction": question,
            "output": f"It is {number + 1}." + " So it is." * int(draw.integers(0, 9)),
            "history": history if number % 3 == 0 else [],
        }


@pytest.fixture(scope="module")
def prepare(sample, tmp_path_factory):
    def prepare(count, seed=0, **fields):
        folder = tmp_path_factory.mktemp("conversations")
        (folder / "a.json").write_text(json.dumps(list(records(count, seed))))
        config = PrepareConversationsConfig(
            name="sft",
            inputs=[str(folder / "a.json")],
            out=str(folder / "out"),
            tokenizer=str(sample / "tokenizer"),
            max_tokens=ROW_LENGTH,
            overlong="truncate",
            held_out_fraction=0.05,
        )
        config = replace(config, **fields)
        prepare_conversations(config, progress=False)
        return Conversations(config.out)

    return prepare


@pytest.fixture(scope="module")
def source(prepare):
    return prepare(83)


def rows_of_epoch(rows, epoch):
    first = epoch * rows.per_epoch
    return [rows.row(n) for n in range(first, first + rows.per_epoch)]


@pytest.mark.parametrize("row_length", [ROW_LENGTH, ROW_LENGTH + 1, 200, 5000])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_an_epoch_holds_every_conversation_once_and_whole(source, row_length, epoch):
    rows = ConversationRows(source, "sft", SEED, row_length)
    seen, supervised = Counter(), 0
    for row in rows_of_epoch(rows, epoch):
        last = int(row.segments.max())
        assert last == len(row.documents) >= 1
        used = int((row.segments > 0).sum())
        assert (np.diff(row.segments[:used]) >= 0).all()  # side by side, padding behind
        assert (row.segments[used:] == 0).all()
        assert (row.labels[used:] == IGNORE_INDEX).all()
        assert (row.tokens[used:] == 0).all()
        for segment, number in enumerate(row.documents.tolist(), start=1):
            seen[number] += 1
            place = np.flatnonzero(row.segments == segment)
            tokens = source.document(number)
            np.testing.assert_array_equal(row.tokens[place], tokens)
            np.testing.assert_array_equal(row.positions[place], np.arange(len(tokens)))
            expected = np.where(source.supervised(number)[1:], tokens[1:].astype(int), IGNORE_INDEX)
            np.testing.assert_array_equal(row.labels[place], np.append(expected, IGNORE_INDEX))
        supervised += int((row.labels != IGNORE_INDEX).sum())
    assert seen == Counter(range(source.documents))
    assert supervised == source.manifest["supervised_tokens"]


def test_labels_decode_to_the_answers(source, sample):
    tokenizer = Tokenizer.open(sample / "tokenizer")
    answers = Counter()
    for row in rows_of_epoch(ConversationRows(source, "sft", SEED, ROW_LENGTH), 0):
        supervised = row.labels != IGNORE_INDEX
        borders = np.flatnonzero(np.diff(supervised, prepend=False, append=False))
        for start, stop in zip(borders[::2], borders[1::2], strict=True):
            answers[tokenizer.decode(row.labels[start:stop].tolist())] += 1
    held_out = {tuple(messages) for messages in source.held_out()}
    expected = Counter()
    for record in records(83):
        turns = [*record["history"], [record["instruction"], record["output"]]]
        texts = [text for turn in turns for text in turn]
        if tuple(texts) not in {tuple(m.content for m in messages) for messages in held_out}:
            expected.update(answer for _, answer in turns)
    truncated = source.manifest["truncated"]
    assert (expected - answers).total() <= truncated
    assert len(held_out) == source.held_out_documents > 0


def test_a_row_depends_on_its_number_only(source):
    rows = ConversationRows(source, "sft", SEED, ROW_LENGTH)
    expected = [rows.row(n) for n in range(40)]
    again = ConversationRows(source, "sft", SEED, ROW_LENGTH)
    for n in (39, 3, 17, 3, 0, 38):
        for field in ("tokens", "labels", "segments", "positions", "documents"):
            np.testing.assert_array_equal(getattr(again.row(n), field), getattr(expected[n], field))


def orders(source, name, seed, epoch):
    rows = ConversationRows(source, name, seed, ROW_LENGTH)
    return [tuple(row.documents.tolist()) for row in rows_of_epoch(rows, epoch)]


def test_epochs_seeds_and_names_have_orders_of_their_own(source):
    drawn = {
        (name, seed, epoch): orders(source, name, seed, epoch)
        for name in ("sft", "other")
        for seed in (1, 2)
        for epoch in (0, 1)
    }
    assert len({tuple(order) for order in drawn.values()}) == 8
    assert len({len(order) for order in drawn.values()}) == 1
    # Not only the order of rows changes, but also who shares one.
    assert len({frozenset(map(frozenset, order)) for order in drawn.values()}) == 8


def test_few_tokens_are_padding(prepare):
    source = prepare(400, seed=1)
    rows = ConversationRows(source, "sft", 0, 2 * ROW_LENGTH)
    assert source.tokens / rows.epoch_tokens > 0.95
    assert rows.epoch_tokens == rows.per_epoch * 2 * ROW_LENGTH


def test_a_conversation_that_fits_no_row_is_refused_at_the_start(source):
    longest = int(source.lengths.max())
    ConversationRows(source, "sft", 0, longest)
    with pytest.raises(ValueError, match=rf"'sft' has a conversation of {longest} tokens") as error:
        ConversationRows(source, "sft", 0, longest - 1)
    assert "batch.row_length" in str(error.value)
    assert f"max_tokens={longest - 1}" in str(error.value)
    with pytest.raises(ValueError, match="has a conversation of"):
        make_loader({"sft": source}, make_plan({"sft": 1.0}, row_length=longest - 1))


def make_plan(weights, steps=30, row_length=ROW_LENGTH, replay=0.0):
    size = row_length * ROWS_PER_STEP
    stages = {"one": Stage(tokens=steps * size, weights=weights)}
    if replay:
        stages["two"] = Stage(
            tokens=8 * size, weights=weights, replay=Replay(of="one", share=replay)
        )
    config = CurriculumConfig(stages=stages)
    return Curriculum(config, row_length=row_length, rows_per_step=ROWS_PER_STEP, seed=SEED)


def make_loader(sources, plan, **options):
    options = {"micro_batch_rows": 2, "rank": 0, "world_size": 1, "seed": SEED} | options
    return Loader(plan, sources, **options)


def rows_by_number(loader, steps):
    found = {}
    for step in range(steps):
        for batch in loader.step(step):
            for i, n in enumerate(batch.rows):
                if n >= 0:
                    tensors = (batch.tokens, batch.labels, batch.segments, batch.positions)
                    found[n] = [tensor[i].numpy().tobytes() for tensor in tensors]
    return found


@pytest.fixture(scope="module")
def mixed(source, sample):
    return {"sft": source, "geo": open_source(sample / "geo_en")}


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_rows_do_not_depend_on_world_size(mixed, world_size):
    plan = make_plan({"sft": 0.7, "geo": 0.3}, replay=0.25)
    with make_loader(mixed, plan) as loader:
        expected = rows_by_number(loader, plan.steps)
    assert sorted(expected) == list(range(plan.rows))
    found = {}
    for rank in range(world_size):
        with make_loader(mixed, plan, rank=rank, world_size=world_size) as loader:
            mine = rows_by_number(loader, plan.steps)
        assert not mine.keys() & found.keys()
        found |= mine
    assert found == expected


@pytest.mark.parametrize("world_size", [1, 3])
def test_each_epoch_supervises_every_token_once(source, world_size):
    per_epoch = ConversationRows(source, "sft", SEED, ROW_LENGTH).per_epoch
    steps = -(-2 * per_epoch // ROWS_PER_STEP)
    plan = make_plan({"sft": 1.0}, steps=steps)
    labels = {}
    for rank in range(world_size):
        with make_loader({"sft": source}, plan, rank=rank, world_size=world_size) as loader:
            labels |= {n: row[1] for n, row in rows_by_number(loader, plan.steps).items()}
    expected = Counter()
    for number in range(source.documents):
        expected.update(source.document(number)[source.supervised(number)].tolist())
    for epoch in range(2):
        found = Counter()
        for n in range(epoch * per_epoch, (epoch + 1) * per_epoch):
            row = np.frombuffer(labels[n], np.int64)
            found.update(row[row != IGNORE_INDEX].tolist())
        assert found == expected


def test_a_conversation_is_traced_to_the_rows_that_hold_it(mixed):
    plan = make_plan({"sft": 0.7, "geo": 0.3}, steps=12, replay=0.25)
    lookup = Trace(plan, mixed, SEED)
    expected = {}
    with make_loader(mixed, plan) as loader:
        for n in range(plan.rows):
            row, pieces = loader.row(n), lookup.pieces(n)
            used = row.segments > 0
            assert [piece.document for piece in pieces] == row.documents.tolist()
            np.testing.assert_array_equal(
                np.concatenate([piece.tokens for piece in pieces]), row.tokens[used]
            )
            if plan.row(n).source == "sft":
                assert all((p.start, p.stop) == (0, p.length) for p in pieces)
            for piece in pieces:
                expected.setdefault((plan.row(n).source, piece.document), set()).add(n)
    consumed, epochs = plan.consumed()["sft"], 0
    for number in range(mixed["sft"].documents):
        found = set()
        for passage in lookup.passages("sft", number):
            assert len(passage.rows) == 1
            assert len(passage.tokens) == mixed["sft"].lengths[number]
            epochs = max(epochs, passage.epoch + 1)
            for reading in passage.readings:
                found.update(reading.rows.tolist())
        assert found == expected.get(("sft", number), set())
    assert epochs == -(
        -consumed // ConversationRows(mixed["sft"], "sft", SEED, ROW_LENGTH).per_epoch
    )
    assert lookup.find("sft:3") == ("sft", 3)
    np.testing.assert_array_equal(lookup.document("sft", 3), mixed["sft"].document(3))


def test_places_are_where_the_rows_have_them(source):
    rows = ConversationRows(source, "sft", SEED, ROW_LENGTH)
    for epoch in (0, 2):
        for number in range(source.documents):
            place = rows.place(number, epoch)
            n, start = divmod(place.start, ROW_LENGTH)
            assert n // rows.per_epoch == epoch
            found = rows.row(n).tokens[start : start + len(place)]
            np.testing.assert_array_equal(found, source.document(number))


def test_sources_of_other_tokenizers_are_refused(mixed, source, sample, tmp_path):
    tokenizer = source.manifest["tokenizer"] | {"fingerprint": "another"}
    other = Conversations(source.folder)
    other.manifest = other.manifest | {"tokenizer": tokenizer}
    with pytest.raises(ValueError, match="different tokenizers"):
        make_loader(mixed | {"sft": other}, make_plan({"sft": 0.5, "geo": 0.5}))


def test_one_conversation_is_a_source(prepare):
    source = prepare(1, held_out_fraction=0.0)
    rows = ConversationRows(source, "sft", SEED, ROW_LENGTH)
    assert rows.per_epoch == 1
    np.testing.assert_array_equal(rows.row(0).tokens, rows.row(7).tokens)


def test_held_out_conversations_are_encoded_as_those_in_training(prepare, sample):
    tokenizer = Tokenizer.open(sample / "tokenizer")
    training, held_out = (prepare(60, seed=5, held_out_fraction=f) for f in (0.0, 0.5))
    stored = {
        tuple(training.document(n).tolist()): training.supervised(n).tolist()
        for n in range(training.documents)
    }
    found = list(held_out.encode_held_out(tokenizer))
    assert len(found) == held_out.held_out_documents > 10
    assert held_out.manifest["truncated"] > 0
    for ids, supervised in found:
        assert stored[tuple(ids)] == supervised


@torch.no_grad()
def test_conversations_in_a_row_do_not_see_each_other(source):
    """The loss of a packed row is the sum of what each conversation has alone."""
    config = toy_config(vocab_size=source.manifest["tokenizer"]["vocab_size"], sliding_window=40)
    model = toy_model(config)
    with make_loader({"sft": source}, make_plan({"sft": 1.0}, steps=1)) as loader:
        (batch, *_) = loader.step(0)
        documents = [n for row in batch.rows for n in loader.row(row).documents.tolist()]
    assert len(documents) > len(batch.rows)
    packed = model(
        batch.tokens, documents=Documents.from_segments(batch.segments), labels=batch.labels
    )
    alone = 0.0
    for number in documents:
        tokens = torch.from_numpy(source.document(number).astype(np.int64))
        supervised = torch.from_numpy(source.supervised(number).copy())
        labels = torch.cat(
            [torch.where(supervised, tokens, IGNORE_INDEX)[1:], torch.tensor([IGNORE_INDEX])]
        )
        alone += float(model(tokens[None], labels=labels[None]).total)
    assert float(packed.total) == pytest.approx(alone, rel=1e-5)
