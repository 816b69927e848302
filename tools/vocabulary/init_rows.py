"""First rows of embedding and head for the pieces that a vocabulary has gained.

A method turns the old rows of one matrix, and the old ids that each new piece was spelt with, into
its new rows:

    mean_subtoken   the mean of the rows the piece was spelt with
    first_subtoken  the row of the first of them: what the head predicted where the piece begins
    mean            the mean of all old rows; N of them add at most log(1 + N/V) to any loss (Hewitt
                    2021, "Initializing New Word Embeddings for Pretrained Language Models")
    noisy_mean      the same and N(0, 1/sqrt(D)), as LLaMA-Factory, which JiuZhou used, resizes
    random          N(0, initializer_range), as if the rows had never been trained
    similar         a sparsemax-weighted mean of the rows of the old pieces that the piece keeps
                    company with (`tools.vocabulary.similarity`; FOCUS, Dobler and de Melo 2023,
                    section 3)

EEVE's rule (Kim et al. 2024, 2402.14714) is mean_subtoken for the embedding and first_subtoken for
the head. Rows that stand for no piece get the mean.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from model.config import ModelConfig
from model.weights import WeightSource

METHODS = ("mean_subtoken", "first_subtoken", "mean", "noisy_mean", "random", "similar")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class Init:
    """Where new rows come from.

    Attributes:
        embedding, head: a method each.
    """

    embedding: str
    head: str

    @staticmethod
    def parse(name: str, head: str | None, *, tied: bool) -> "Init":
        """The methods behind `init` and `head_init`; a head that is not named follows suit.

        Raises:
            ValueError: there is no such method, or a tied head is asked to differ.
        """
        if name == "eeve":
            if head not in (None, "first_subtoken"):
                raise ValueError(f"head_init={head} with init=eeve, which means first_subtoken")
            name, head = "mean_subtoken", "first_subtoken"
        init = Init(name, head or name)
        for key, method in (("init", init.embedding), ("head_init", init.head)):
            if method not in METHODS:
                raise ValueError(f"{key}={method!r}: one of {', '.join(METHODS)}, or init=eeve")
        if tied and init.embedding != init.head:
            raise ValueError(
                f"init={init.embedding} with head_init={init.head}: this model's head is its "
                "embedding, so both must be the same"
            )
        return init


@dataclass(frozen=True)
class NewPieces:
    """What the new rows of both matrices are made from.

    Attributes:
        num_base_ids: how many pieces the base's tokenizer has; the first new id.
        subtokens: of each new piece, the old ids that it was spelt with; never empty.
        neighbours: of each new piece, old ids and their weights, which sum to 1; for the method
            `similar`, None if it is not used.
        seed: of what is drawn.
    """

    num_base_ids: int
    subtokens: Sequence[Sequence[int]]
    neighbours: Sequence[tuple[Tensor, Tensor]] | None = None
    seed: int = 0


def new_rows(
    old: Float[Tensor, "V D"], name: str, method: str, new: NewPieces, config: ModelConfig
) -> Float[Tensor, "N D"]:
    """The rows of the new pieces in one matrix, in fp32.

    Args:
        old: the rows of the old pieces, in any floating dtype.
        name: of the matrix; what is drawn differs between the two.
        method: one of `METHODS`.
    """
    old = old.float()
    if method == "mean_subtoken":
        return torch.stack([old[list(ids)].mean(0) for ids in new.subtokens])
    if method == "first_subtoken":
        return old[[ids[0] for ids in new.subtokens]]
    if method == "similar":
        assert new.neighbours is not None
        return torch.stack([weights @ old[ids] for ids, weights in new.neighbours])
    shape = len(new.subtokens), old.shape[1]
    mean = old.mean(0).expand(shape)
    if method == "mean":
        return mean
    digest = hashlib.sha256(f"{new.seed}/{name}/{method}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    noise = torch.empty(shape).normal_(generator=generator)
    if method == "noisy_mean":
        return mean + noise * old.shape[1] ** -0.5
    assert method == "random"
    return noise * config.initializer_range


class GrownWeights:
    """The weights of a base model with new rows: a `WeightSource` that holds no more than those.

    Old rows are the base's bit for bit. All other tensors are read through.

    Attributes:
        config: the grown model's.
    """

    def __init__(self, base: WeightSource, config: ModelConfig, init: Init, new: NewPieces) -> None:
        """
        Args:
            config: of the grown model; its rows beyond the new pieces stand for none.
        """
        self.config = config
        self._base = base
        self._num_base_ids = new.num_base_ids
        self._added: dict[str, Tensor] = {}
        methods = {EMBEDDING: init.embedding, HEAD: init.head}
        if config.tie_word_embeddings:
            del methods[HEAD]
        for name, method in methods.items():
            old = base.read(name, slice(0, new.num_base_ids))
            added = new_rows(old, name, method, new, config)
            rest = config.vocab_size - new.num_base_ids - len(added)
            padding = old.float().mean(0).expand(rest, -1)
            self._added[name] = torch.cat([added, padding]).to(old.dtype)

    @property
    def added(self) -> dict[str, Tensor]:
        """The rows from the first new id on, by the name of their matrix."""
        return self._added

    def read(self, name: str, rows: slice) -> Tensor:
        """Rows of one tensor, in the dtype that the base is stored in."""
        if name not in self._added:
            return self._base.read(name, rows)
        start, stop, step = rows.indices(self.config.vocab_size)
        assert step == 1
        old = self._base.read(name, slice(start, max(start, min(stop, self._num_base_ids))))
        added = self._added[name][
            max(0, start - self._num_base_ids) : max(0, stop - self._num_base_ids)
        ]
        return torch.cat([old, added])

    def tensors(self, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) one at a time, for `write_folder`."""
        for name in names:
            yield name, self.read(name, slice(None))
