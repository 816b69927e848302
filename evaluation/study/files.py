"""Reading of the files of a run folder for a report.

Every run has config.yaml and metrics.jsonl. `scripts.measure` adds

    study.json       {"arm": str, "seed": int, "starts_from": name of a run or null, "lr": float}
    documents.json   {"<held-out set>": [[nats, bytes], ...]}, a pair for every held-out document
    probes.json      [{"id", "language", "domain", "exposures", "invented", "correct",
                       "margin_nats_per_byte"}, ...]
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray


@dataclass(frozen=True)
class Evaluation:
    """One evaluation: bits per byte and UTF-8 bytes of every held-out set."""

    step: int
    stage: str
    bits: dict[str, float]
    sizes: dict[str, int]

    def side(self, sets: Sequence[str], outcome: str = "mean") -> float:
        """Bits per byte of a side; NaN without a held-out set."""
        if not sets:
            return math.nan
        weights = [self.sizes[name] if outcome == "pooled" else 1 for name in sets]
        total = sum(w * self.bits[name] for w, name in zip(weights, sets, strict=True))
        return total / sum(weights)


@dataclass(frozen=True)
class Probe:
    """Result of one question about a fact of the embedded sample.

    Attributes:
        exposures: number of training documents that state the fact.
        invented: the fact is not real, so only the sample can teach it.
        margin: nats per byte between the right ending and the best wrong one.
    """

    exposures: int
    invented: bool
    correct: bool
    margin: float


def read_config(path: Path) -> dict[str, Any]:
    """Configuration in a run folder.

    Raises:
        ValueError: the file is missing or invalid; the message names file and place.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; every run writes it before its first step") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict) or not isinstance(config.get("data"), dict):
        raise ValueError(f"{path}: not the configuration of a run (no `data`); check runs=")
    return config


def read_metrics(path: Path) -> tuple[list[Evaluation], list[int]]:
    """Evaluations of metrics.jsonl, and the last steps of stages before another.

    Raises:
        ValueError: a line is not a valid log record; the message names file and line.
    """
    evaluations, borders = [], []
    stage, step = None, 0
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            break  # the line is being written, or was cut by a kill
        try:
            row = json.loads(line)
            if "eval" in row:
                bits = {name: float(r["bits_per_byte"]) for name, r in row["eval"].items()}
                sizes = {name: int(r["bytes"]) for name, r in row["eval"].items()}
                evaluations.append(Evaluation(int(row["step"]), row["stage"], bits, sizes))
            elif "loss_nats" in row:
                if stage not in (None, row["stage"]):
                    borders.append(step)
                stage, step = row["stage"], int(row["step"])
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ValueError(
                f"{path}, line {number} is not a valid log record: {line[:40]!r}; "
                "correct or remove it"
            ) from None
    return evaluations, borders


def _read_json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return kind()
    except ValueError as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(f"{path}{line}: not JSON ({error})") from None
    if not isinstance(content, kind):
        raise ValueError(f"{path}, line 1: must be a JSON {'object' if kind is dict else 'list'}")
    return content


def read_study(path: Path) -> dict[str, Any]:
    """Content of study.json; empty without the file.

    Raises:
        ValueError: the file is invalid; the message names file and place.
    """
    study = _read_json(path, dict)
    if not path.exists():
        return {}
    kinds = {
        "arm": (str, "name"),
        "seed": (int, "whole number"),
        "starts_from": (str | None, "name of a run, or null"),
        "lr": (int | float, "number"),
    }
    for name, (kind, wanted) in kinds.items():
        if name not in study or not isinstance(study[name], kind):
            raise ValueError(f"{path}: {name}={study.get(name)!r} must be a {wanted}")
    return study


def read_documents(path: Path) -> dict[str, NDArray[np.float64]]:
    """Content of documents.json as (D, 2) arrays; empty without the file.

    Raises:
        ValueError: the file is invalid; the message names file and place.
    """
    documents = {}
    for name, pairs in _read_json(path, dict).items():
        try:
            table = np.asarray(pairs, dtype=np.float64)
        except (ValueError, TypeError):
            table = np.empty(0)
        if table.shape[1:] != (2,) or not np.isfinite(table).all() or (table[..., 1] <= 0).any():
            raise ValueError(f"{path}: {name} must be pairs [nats, bytes], one per document")
        documents[name] = table
    return documents


def read_probes(path: Path) -> tuple[Probe, ...]:
    """Content of probes.json; empty without the file.

    Raises:
        ValueError: the file is invalid; the message names file and place.
    """
    probes = []
    for number, row in enumerate(_read_json(path, list)):
        try:
            margin = float(row["margin_nats_per_byte"])
            flags = bool(row["invented"]), bool(row["correct"])
            probes.append(Probe(int(row["exposures"]), *flags, margin))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}, entry {number}: not a probe ({error!r})") from None
    return tuple(probes)
