"""Configuration that sources of documents and of conversations share."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(kw_only=True)
class PrepareBaseConfig:
    """Settings of a prepared source of either kind."""

    name: str
    """Name of the source in curricula and reports: letters, digits, `_`, `.` and `-`."""
    inputs: list[str]
    """Files or globs, read in sorted order."""
    out: str
    """Folder to create. `<out>.tmp` holds unfinished work."""
    tokenizer: str
    """A `.model` file or a tokenizer folder."""
    held_out_fraction: float = 0.01
    """Share of documents or conversations held out of training, 0 <= fraction < 1."""
    on_error: str = "skip"
    """`skip` leaves bad records out, counts them and lists them in skipped.jsonl; `fail` stops."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"name: {self.name!r}; use letters, digits, `_`, `.` and `-`")
        self._check_given("inputs", "out", "tokenizer")
        self._check_choices({"on_error": ("skip", "fail")})
        if not 0 <= self.held_out_fraction < 1:
            raise ValueError(
                f"held_out_fraction: {self.held_out_fraction}; it must be >= 0 and < 1"
            )

    def _check_given(self, *names: str) -> None:
        for name in names:
            if not getattr(self, name):
                raise ValueError(f"{name}: empty; it must be given")

    def _check_choices(self, choices: Mapping[str, Sequence[Any]]) -> None:
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: {getattr(self, name)!r}; choose from {allowed}")

    def _check_least(self, **least: int) -> None:
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name}: {getattr(self, name)}; it must be >= {value}")
