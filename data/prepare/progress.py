"""How far the reading of some files has come, as a bar on stderr."""

import itertools
from pathlib import Path

from tqdm import tqdm

from data.records.readers import Position


class ReadingBar(tqdm):
    """A bar over the bytes of files as they lie on disk; `reach` moves it."""

    def __init__(self, label: str, paths: list[str], position: Position, *, shown: bool) -> None:
        sizes = (Path(path).stat().st_size for path in paths)
        self._starts = [0, *itertools.accumulate(sizes)]
        begun = self._starts[position.file] + position.bytes_read
        super().__init__(
            desc=label, total=self._starts[-1], initial=begun, unit="B", unit_scale=True,
            disable=not shown,
        )  # fmt: skip

    def reach(self, position: Position) -> None:
        """Show that all up to a record has been dealt with."""
        self.update(self._starts[position.file] + position.bytes_read - self.n)
