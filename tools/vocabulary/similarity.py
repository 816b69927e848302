"""Which old pieces a new piece keeps company with: FOCUS without a download.

FOCUS (Dobler and de Melo 2023, "FOCUS: Effective Embedding Initialization for Monolingual
Specialization of Multilingual Models") compares pieces in an auxiliary space, fastText vectors
trained on text in the new tokens, and makes each new row a mean of old rows weighted by the
sparsemax of the cosines. Here the auxiliary space is counted instead of trained: positive pointwise
mutual information with the most frequent pieces, reduced to its leading singular vectors (Levy and
Goldberg 2014, "Neural Word Embedding as Implicit Matrix Factorization"), from the sample alone.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

WINDOW = 5
"""Tokens on either side that count as company."""
CONTEXTS = 1024
"""The most frequent pieces; company with others is not counted."""
WIDTH = 128
MOST = 32
"""Old pieces that a new row is made from at most."""
_ROWS_AT_A_TIME = 1024


def company(documents: Iterable[Sequence[int]], vocab_size: int) -> Float[Tensor, "V d"]:
    """Unit vectors of the pieces by the company they keep in a text; zero for those without any.

    Args:
        documents: ids of one vocabulary, old and new pieces alike.
    """
    met = _count(documents, vocab_size)  # (V, contexts)
    total, rows, columns = met.sum(), met.sum(1, keepdim=True), met.sum(0)
    # Positive pointwise mutual information, in place; pieces that never met have -inf, hence 0.
    met.mul_(total).div_(rows.clamp(min=1)).div_(columns.clamp(min=1)).log_().clamp_(min=0)
    values, directions = torch.linalg.eigh((met.T @ met).double())
    values, directions = values[-WIDTH:].clamp(min=1e-9), directions[:, -WIDTH:]
    # Half of each singular value, which serves similarity better than all of it (Levy et al. 2015).
    vectors = met @ (directions * values**-0.25).float()
    return torch.nn.functional.normalize(vectors, dim=1)


def _count(documents: Iterable[Sequence[int]], vocab_size: int) -> Float[Tensor, "V contexts"]:
    """How often each piece met each of the most frequent ones."""
    gap = [-1] * WINDOW  # keeps documents apart
    ids = np.concatenate([np.array([*gap, *document], np.int64) for document in documents])
    frequency = np.bincount(ids[ids >= 0], minlength=vocab_size)
    contexts = np.argsort(-frequency, kind="stable")[:CONTEXTS]
    column = np.full(vocab_size + 1, -1)  # the last stands for the gap
    column[contexts] = np.arange(len(contexts))
    met = np.zeros(vocab_size * len(contexts), np.float32)
    for distance in range(1, WINDOW + 1):
        for here, there in ((ids[distance:], ids[:-distance]), (ids[:-distance], ids[distance:])):
            counted = (here >= 0) & (column[there] >= 0)
            np.add.at(met, here[counted] * len(contexts) + column[there[counted]], np.float32(1))
    return torch.from_numpy(met).view(vocab_size, len(contexts))


def neighbours(
    vectors: Float[Tensor, "V d"], num_base_ids: int, subtokens: Sequence[Sequence[int]]
) -> list[tuple[Tensor, Tensor]]:
    """Old ids and weights for each new piece, nearest first, at most `MOST`.

    A piece without company, or whose company no old piece shares, falls back on its subtokens.
    """
    old = vectors[:num_base_ids]
    found = []
    for first in range(0, len(subtokens), _ROWS_AT_A_TIME):
        spelt = subtokens[first : first + _ROWS_AT_A_TIME]
        new = vectors[num_base_ids + first :][: len(spelt)]
        cosines, ids = (new @ old.T).topk(min(MOST, num_base_ids))
        for pieces, cosine, near, weights in zip(
            spelt, cosines, ids, sparsemax(cosines), strict=True
        ):
            if cosine[0] > 0:
                found.append((near[weights > 0], weights[weights > 0]))
            else:
                found.append((torch.tensor(list(pieces)), torch.ones(len(pieces)) / len(pieces)))
    return found


def sparsemax(sorted_scores: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """The nearest distributions to scores that fall along each row (Martins and Astudillo 2016)."""
    ranks = torch.arange(1, sorted_scores.shape[1] + 1)
    sums = sorted_scores.cumsum(1)
    size = (1 + ranks * sorted_scores > sums).sum(1, keepdim=True)  # of the support
    threshold = (sums.gather(1, size - 1) - 1) / size
    return (sorted_scores - threshold).clamp(min=0)
