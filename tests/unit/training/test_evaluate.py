import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.transformer import Mistral
from model.weights import InitialWeights, fill
from tests.helpers.toy import toy_config
from training.distributed import start_world
from training.evaluate import (
    EvaluationConfig,
    HeldOutSet,
    after_bos,
    build_set,
    cut_text,
    evaluate,
    pack_pieces,
)


class Bytes:
    """A tokenizer whose ids are bytes."""

    bos_id, eos_id = 256, 257

    def encode_batch(self, texts):
        return [list(text.encode()) for text in texts]


@given(text=st.text(max_size=200), chunk_bytes=st.integers(4, 50))
def test_cuts_lose_nothing_and_split_no_character(text, chunk_bytes):
    text = text.encode(errors="ignore").decode()
    pieces = list(cut_text(text, chunk_bytes))
    assert "".join(pieces) == text
    assert all(0 < len(piece.encode()) <= chunk_bytes for piece in pieces)
    # As long as characters allow: none could have taken the next one's first character.
    for piece, after in pairwise(pieces):
        assert len((piece + after[0]).encode()) > chunk_bytes


@given(lengths=st.lists(st.integers(2, 20), min_size=1, max_size=30))
def test_packing_keeps_every_piece_whole(lengths):
    pieces = [list(range(1000 * n, 1000 * n + length)) for n, length in enumerate(lengths)]
    batch = pack_pieces([after_bos(piece) for piece in pieces], 20)
    found = []
    for row in range(len(batch.rows)):
        for segment in range(1, int(batch.segments[row].max()) + 1):
            inside = batch.segments[row] == segment
            tokens = batch.tokens[row][inside].tolist()
            found.append(tokens)
            assert batch.positions[row][inside].tolist() == list(range(len(tokens)))
            assert batch.labels[row][inside].tolist() == [*tokens[1:], -100]
    assert found == pieces
    assert (batch.labels[batch.segments == 0] == -100).all()


def toy_model(shape):
    model = Mistral(shape)
    fill(model, InitialWeights(model, seed=0))
    return model


def toy_set():
    generator = torch.Generator().manual_seed(1)
    drawn = (torch.randint(60, (n,), generator=generator).tolist() for n in range(3, 22))
    pieces = [after_bos(ids) for ids in drawn]
    return HeldOutSet("toy", pieces, utf8_bytes=777)


def test_a_uniform_model_costs_the_logarithm_of_the_vocabulary():
    model = toy_model(toy_config(vocab_size=60))
    torch.nn.init.zeros_(model.lm_head.weight)
    with start_world("cpu") as world:
        result = evaluate(model, [toy_set()], row_length=24, micro_batch_rows=4, world=world)
    assert result["toy"]["loss_nats"] == pytest.approx(math.log(60), rel=1e-6)


def test_sets_are_cut_from_the_beginning_and_bounded():
    config = EvaluationConfig(chunk_bytes=8, max_bytes=20)
    held_out = build_set("x", ["abcdefghij", "klmnopqrstuvwxyz"], Bytes(), config, 16)
    assert [bytes(piece.ids[1:-1]) for piece in held_out.pieces] == [
        b"abcdefgh",
        b"ij",
        b"klmnopqr",
    ]
    assert all(piece.ids[0] == 256 and piece.ids[-1] == 257 for piece in held_out.pieces)
    assert held_out.utf8_bytes == 18


def test_a_piece_longer_than_a_row_is_refused():
    config = EvaluationConfig(chunk_bytes=30, max_bytes=100)
    with pytest.raises(ValueError, match=r"32 tokens, rows have 16; .*evaluation\.chunk_bytes=30"):
        build_set("x", ["a" * 40], Bytes(), config, 16)


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="held-out text of x is empty"):
        build_set("x", [], Bytes(), EvaluationConfig(), 1024)


@pytest.mark.parametrize("name", ["every", "chunk_bytes", "max_bytes"])
def test_bad_settings_are_refused(name):
    with pytest.raises(ValueError, match=f"evaluation.{name}=0"):
        EvaluationConfig(**{name: 0})
