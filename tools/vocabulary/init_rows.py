"""Initial rows of embedding and head for the new pieces of a grown vocabulary.

A method computes the new rows of one matrix from its old rows and from the subtokens of each new
piece, that is the old ids that spell the piece:

    mean_subtoken   the mean of the rows of the subtokens
    first_subtoken  the row of the first subtoken, which the head predicted where the piece starts

EEVE's rule (Kim et al. 2024, 2402.14714) is mean_subtoken for the embedding and first_subtoken for
the head. Padding rows get the mean of all old rows: N of them add at most log(1 + N/V) to any loss
(Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from model.config import ModelConfig
from model.weights import WeightSource

METHODS = ("mean_subtoken", "first_subtoken")
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class Init:
    """Methods that initialise the new rows.

    Attributes:
        embedding, head: one of `METHODS` each.
    """

    embedding: str
    head: str

    @staticmethod
    def parse(name: str, head: str | None, *, tied: bool) -> "Init":
        """Read the fields `init` and `head_init`; the head uses `init` if `head_init` is null.

        Raises:
            ValueError: unknown method, or different methods for a tied embedding and head.
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
    """New pieces of a grown vocabulary, spelled in old ones.

    Attributes:
        num_base_ids: number of pieces of the base's tokenizer, which is the first new id.
        subtokens: for each new piece the old ids that spell it, at least one.
    """

    num_base_ids: int
    subtokens: Sequence[Sequence[int]]


def new_rows(old: Float[Tensor, "V D"], method: str, new: NewPieces) -> Float[Tensor, "N D"]:
    """Rows of the new pieces in one matrix, in fp32.

    Args:
        old: rows of the old pieces, in any floating dtype.
        method: one of `METHODS`.
    """
    if method == "mean_subtoken":
        return torch.stack([old[list(ids)].float().mean(0) for ids in new.subtokens])
    assert method == "first_subtoken"
    return old[[ids[0] for ids in new.subtokens]].float()


class GrownWeights:
    """Weights of a base model with new rows: a `WeightSource` that holds only the new rows.

    Old rows equal those of the base bit for bit, and all other tensors are those of the base.

    Attributes:
        config: shape of the grown model.
        added: matrix name -> its rows from the first new id on.
    """

    def __init__(self, base: WeightSource, config: ModelConfig, init: Init, new: NewPieces) -> None:
        """
        Args:
            config: shape of the grown model; its rows after the new pieces are padding.
        """
        self.config = config
        self.added: dict[str, Tensor] = {}
        self._base = base
        self._num_base_ids = new.num_base_ids
        methods = {EMBEDDING: init.embedding, HEAD: init.head}
        if config.tie_word_embeddings:
            del methods[HEAD]
        for name, method in methods.items():
            old = base.read(name, slice(0, new.num_base_ids))
            added = new_rows(old, method, new)
            rest = config.vocab_size - new.num_base_ids - len(added)
            padding = old.float().mean(0).expand(rest, -1)
            self.added[name] = torch.cat([added, padding]).to(old.dtype)

    def read(self, name: str, rows: slice) -> Tensor:
        """Rows of one tensor, in the dtype in which the base stores it."""
        if name not in self.added:
            return self._base.read(name, rows)
        start, stop, step = rows.indices(self.config.vocab_size)
        assert step == 1
        first = self._num_base_ids
        old = self._base.read(name, slice(start, max(start, min(stop, first))))
        return torch.cat([old, self.added[name][max(0, start - first) : max(0, stop - first)]])
