"""Measurements of a grown vocabulary: tokens saved, cost, and loss before any training."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sentencepiece.sentencepiece_model_pb2 import (
    ModelProto,  # pyright: ignore[reportAttributeAccessIssue] protobuf makes it at run time
)

from model.attention import resolve_backend
from model.config import ModelConfig
from model.device import compute_dtype
from model.transformer import Mistral
from model.weights import fill
from pretrained.safetensors_folder import PretrainedFolder
from tokenizer.expansion.rules import main_script
from tokenizer.hf_export import BYTE, SPACE
from tokenizer.tokenizer import Tokenizer
from tools.vocabulary.init_rows import EMBEDDING, HEAD, METHODS, GrownWeights, Init, NewPieces
from training.distributed import start_world
from training.evaluate import EvaluationConfig, HeldOutSet, build_set, evaluate
from training.optim import OptimConfig
from training.optimizer import WEIGHT_AND_GRADIENT_BYTES

NO_GROWTH = "no growth"
SHOWN_CHANGES = 8
_ROW_LENGTH = 512


@dataclass(frozen=True)
class Compression:
    """Tokens of one text before and after growth.

    Attributes:
        name: name of the corpus.
        kind: held-out text, or part of the sample on which the pieces were chosen.
        script: script of most letters.
        documents, characters, utf8_bytes: size of the text.
        before, after: numbers of tokens, without BOS and EOS.
        documents_unchanged: number of documents with the same ids as before.
        share_unchanged: share of the bytes in tokens that are unchanged in id and position.
        met: (new piece, its spelling before, count) of the most frequent new pieces.
    """

    name: str
    kind: str
    script: str
    documents: int
    characters: int
    utf8_bytes: int
    before: int
    after: int
    documents_unchanged: int
    share_unchanged: float
    met: list[tuple[str, list[str], int]]


@dataclass(frozen=True)
class Growth:
    """A tokenizer before and after growth.

    Attributes:
        base, grown: the two tokenizers.
        widths: (V,) UTF-8 bytes of each grown piece; 1 for a byte piece.
        spellings: new id -> (piece, the old pieces that spelled it).
    """

    base: Tokenizer
    grown: Tokenizer
    widths: np.ndarray
    spellings: dict[int, tuple[str, list[str]]]


def measure_compression(name: str, kind: str, texts: Sequence[str], growth: Growth) -> Compression:
    """Tokenize a text with both tokenizers and compare."""
    widths = growth.widths
    before, after, same_documents, same_bytes, all_bytes = 0, 0, 0, 0, 0
    met: Counter[int] = Counter()
    old, new = (tokenizer.encode_batch(list(texts)) for tokenizer in (growth.base, growth.grown))
    for one, other in zip(old, new, strict=True):
        one, other = np.array(one, np.int64), np.array(other, np.int64)
        before, after = before + len(one), after + len(other)
        same_documents += np.array_equal(one, other)
        kept = np.intersect1d(_placed(one, widths), _placed(other, widths))
        same_bytes += int(widths[kept % len(widths)].sum())
        all_bytes += int(widths[one].sum())  # with the dummy prefix
        met.update(other[other >= growth.base.vocab_size].tolist())
    return Compression(
        name=name,
        kind=kind,
        script=main_script(texts),
        documents=len(texts),
        characters=sum(map(len, texts)),
        utf8_bytes=sum(len(text.encode()) for text in texts),
        before=before,
        after=after,
        documents_unchanged=int(same_documents),
        share_unchanged=same_bytes / all_bytes,
        met=[(*growth.spellings[id], n) for id, n in met.most_common(SHOWN_CHANGES)],
    )


def piece_widths(model: ModelProto) -> np.ndarray:
    """(V,) UTF-8 bytes of text of each piece."""
    return np.array(
        [1 if p.type == BYTE else len(p.piece.replace(SPACE, " ").encode()) for p in model.pieces]
    )


def _placed(ids: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """One number for each pair of a token and the byte at which it starts."""
    starts = np.cumsum(widths[ids]) - widths[ids]
    return starts * len(widths) + ids


@dataclass(frozen=True)
class HeadCost:
    """Cost of the added rows.

    Attributes:
        rows, base_rows: rows of embedding and head, after and before.
        parameters: number of added parameters.
        training_bytes: fp32 weight, gradient and two moments of the added parameters.
        flops_per_token, base_flops_per_token: training FLOPs without attention scores.
    """

    rows: int
    base_rows: int
    parameters: int
    training_bytes: int
    flops_per_token: int
    base_flops_per_token: int

    @staticmethod
    def of(base: ModelConfig, grown: ModelConfig) -> "HeadCost":
        matrices = 1 if base.tie_word_embeddings else 2
        parameters = (grown.vocab_size - base.vocab_size) * base.hidden_size * matrices
        return HeadCost(
            rows=grown.vocab_size,
            base_rows=base.vocab_size,
            parameters=parameters,
            training_bytes=(WEIGHT_AND_GRADIENT_BYTES + OptimConfig().optimizer.state_bytes)
            * parameters,
            flops_per_token=grown.training_flops(1, 0),
            base_flops_per_token=base.training_flops(1, 0),
        )


def init_methods(chosen: Init, *, tied: bool) -> dict[str, Init]:
    """Initialisations to compare: every method, EEVE's rule, and the configured one."""
    inits = {name: Init(name, name) for name in METHODS}
    if not tied:
        inits["eeve"] = Init.parse("eeve", None, tied=False)
    if chosen not in inits.values():
        inits[f"{chosen.embedding}, head {chosen.head}"] = chosen
    return inits


def measure_losses(
    base: PretrainedFolder,
    shape: ModelConfig,
    inits: dict[str, Init],
    new: NewPieces,
    texts: dict[str, list[str]],
    growth: Growth,
    *,
    loss_bytes: int,
    device: str,
    say: Callable[[str], None],
) -> dict[str, dict[str, float]]:
    """Initialisation -> corpus -> bits per byte before any training.

    The line `NO_GROWTH` is the base: the same network with the new rows masked, on the base's
    tokens. Only one network is in memory.

    Args:
        shape: shape of the grown model.
    """
    settings = EvaluationConfig(max_bytes=loss_bytes)
    old_sets, new_sets = (
        [build_set(name, t, tokenizer, settings, _ROW_LENGTH) for name, t in texts.items()]
        for tokenizer in (growth.base, growth.grown)
    )
    with start_world(device) as world:
        dtype = compute_dtype("auto", world.device)
        backend = resolve_backend("auto", world.device, dtype, shape.head_size)
        with torch.device("meta"):
            model = Mistral(shape, backend=backend)
        model.to(dtype).to_empty(device=world.device).tie_weights()

        def bits(sets: list[HeldOutSet]) -> dict[str, float]:
            results = evaluate(model, sets, row_length=_ROW_LENGTH, micro_batch_rows=4, world=world)
            return {name: result["bits_per_byte"] for name, result in results.items()}

        losses: dict[str, dict[str, float]] = {}
        for name, init in inits.items():
            grown = GrownWeights(base, shape, init, new)
            if not losses:
                fill(model, grown)
                model.config = replace(shape, num_padded_ids=shape.vocab_size - new.num_base_ids)
                losses[NO_GROWTH] = bits(old_sets)
                model.config = shape
            _replace_rows(model, grown, new.num_base_ids)
            losses[name] = bits(new_sets)
            say(f"  {name}: " + ", ".join(f"{k} {v:.3f}" for k, v in losses[name].items()))
    return losses


@torch.no_grad()
def _replace_rows(model: Mistral, grown: GrownWeights, first: int) -> None:
    for name, matrix in ((EMBEDDING, model.model.embed_tokens), (HEAD, model.lm_head)):
        if name in grown.added:
            matrix.weight[first:].copy_(grown.added[name])
