"""Batches of a run: rank r takes rows r, r + world_size, ... of each step.

A batch is a pure function of (config, data, step, rank, world size): a loader has no state to save
and steps can be read in any order. Every rank gets equally many micro-batches of equal size, filled
up with padding rows, so that any world size works and collectives stay in step. The next steps are
computed ahead by one thread, which changes nothing but the time that `step` takes.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int32, Int64
from torch import Tensor

from data.rows.curriculum import Curriculum
from data.rows.packing import Row, empty_row
from data.rows.sources import AnySource, rows_of_run
from model.labels import IGNORE_INDEX


@dataclass(frozen=True)
class Batch:
    """Rows stacked for one forward pass; `data.rows.packing.Row` says what the tensors hold.

    Attributes:
        sources: for each row its source or `replay`; "" for padding.
        rows: the number of each row within the run; -1 for padding.
    """

    tokens: Int64[Tensor, "B T"]
    labels: Int64[Tensor, "B T"]
    segments: Int32[Tensor, "B T"]
    positions: Int32[Tensor, "B T"]
    sources: list[str]
    rows: list[int]

    @property
    def supervised_tokens(self) -> int:
        """Number of tokens with a label."""
        return int((self.labels != IGNORE_INDEX).sum())


class Loader:
    """The batches of one rank, from sources of documents, of conversations, or both.

    Raises:
        ValueError: the plan reads a source that is not there, sources do not share a tokenizer, or
            a conversation does not fit a row.
    """

    def __init__(
        self,
        plan: Curriculum,
        sources: Mapping[str, AnySource],
        *,
        micro_batch_rows: int,
        rank: int,
        world_size: int,
        seed: int,
        prefetch: int = 2,
    ) -> None:
        assert 0 <= rank < world_size
        assert micro_batch_rows > 0
        _check_sources(plan.sources, sources)
        self._plan = plan
        self._rows = {
            name: rows_of_run(sources[name], name, seed, plan.row_length) for name in plan.sources
        }
        self._micro_batch_rows = micro_batch_rows
        self._rank = rank
        self._world_size = world_size
        self._prefetch = prefetch
        self._ahead: dict[int, Future[list[Batch]]] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")

    @property
    def epoch_tokens(self) -> dict[str, int]:
        """Tokens in one epoch of each source, padding included."""
        return {name: rows.epoch_tokens for name, rows in self._rows.items()}

    def row(self, n: int) -> Row:
        """Row n of the run."""
        address = self._plan.row(n)
        return self._rows[address.source].row(address.index)

    def step(self, step: int) -> list[Batch]:
        """This rank's micro-batches of a step."""
        assert 0 <= step < self._plan.steps
        wanted = range(step, min(step + self._prefetch + 1, self._plan.steps))
        for stale in self._ahead.keys() - set(wanted):
            self._ahead.pop(stale).cancel()
        for ahead in wanted:
            if ahead not in self._ahead:
                self._ahead[ahead] = self._thread.submit(self._compute, ahead)
        return self._ahead.pop(step).result()

    def close(self) -> None:
        """Stop computing ahead."""
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _compute(self, step: int) -> list[Batch]:
        per_step = self._plan.rows_per_step
        numbers = list(range(step * per_step + self._rank, (step + 1) * per_step, self._world_size))
        most = -(-per_step // self._world_size)
        parts = -(-most // self._micro_batch_rows)
        size = -(-most // parts)  # as even as can be: little is filled up with padding
        numbers += [-1] * (parts * size - len(numbers))
        return [self._batch(numbers[i : i + size]) for i in range(0, len(numbers), size)]

    def _batch(self, numbers: list[int]) -> Batch:
        padding = empty_row(self._plan.row_length)
        rows = [padding if n < 0 else self.row(n) for n in numbers]
        return Batch(
            tokens=torch.from_numpy(np.stack([row.tokens for row in rows])),
            labels=torch.from_numpy(np.stack([row.labels for row in rows])),
            segments=torch.from_numpy(np.stack([row.segments for row in rows])),
            positions=torch.from_numpy(np.stack([row.positions for row in rows])),
            sources=["" if n < 0 else self._plan.row(n).counted_as for n in numbers],
            rows=numbers,
        )


def _check_sources(names: list[str], sources: Mapping[str, AnySource]) -> None:
    for name in names:
        if name not in sources:
            raise ValueError(
                f"the curriculum names source {name!r}, but the data has {', '.join(sources)}"
            )
    for name in names[1:]:
        for key in ("fingerprint", "bos_id", "eos_id"):
            one, other = (sources[each].manifest["tokenizer"][key] for each in (names[0], name))
            if one != other:
                raise ValueError(
                    f"sources {names[0]!r} and {name!r} were prepared with different tokenizers "
                    f"({key} {one} and {other}); prepare both with the same one"
                )
