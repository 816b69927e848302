"""Checks before a run resumes in a folder; a refusal comes before anything is written.

Settings are compared in conf/schema.py, where they are known.
"""

import json
from pathlib import Path

from pretrained.merged import ADAPTED
from storage.journal import json_row
from training.run.folder import read_starts

HELD_OUT = "/held_out"
"""Ends the name under which the held-out text of a source has its fingerprint."""
ADAPTER = "init_from (adapter)"
"""The name under which the adapter that a run continues to train has its fingerprint."""


def check_same_state(
    folder: Path, steps: list[int], fingerprints: dict[str, str], dtype: str
) -> None:
    """Refuse to resume with other data or in another precision.

    Args:
        steps: of the checkpoints that are there.
        fingerprints: of what would be read now.
        dtype: what would be computed in now, as starts.jsonl has it.

    Raises:
        ValueError: names what is missing, or differs.
    """
    check_records(folder, steps)
    check_same_data(folder / "environment.json", fingerprints)
    check_same_dtype(folder, dtype)


def check_records(folder: Path, steps: list[int]) -> None:
    """Refuse to resume from checkpoints of unknown origin.

    Args:
        steps: of the checkpoints that are there.

    Raises:
        ValueError: names the files that are missing.
    """
    names = ("config.yaml", "environment.json")
    missing = [name for name in names if not (folder / name).is_file()]
    if steps and missing:
        raise ValueError(
            f"{folder} contains checkpoints up to step {steps[-1]} but no "
            f"{' and no '.join(missing)}, so their origin cannot be checked; restore the missing "
            "files, or set another name"
        )


def check_resume(resume: str, folder: Path, steps: list[int]) -> None:
    """Compare `resume` with the steps of the checkpoints that are there.

    Raises:
        ValueError: checkpoints exist although resume=never, or do not exist although
            resume=required or an earlier start proves that they did.
    """
    if resume == "never" and steps:
        raise ValueError(
            f"resume=never, but {folder} holds checkpoints up to step {steps[-1]}; remove "
            "the folder, set another name, or resume=auto"
        )
    if resume == "required" and not steps:
        raise ValueError(
            f"resume=required, but {folder} holds no checkpoint; check the name, or "
            "resume=auto to begin"
        )
    if not steps:
        check_checkpoints_not_lost(folder)


def recorded_fingerprints(path: Path) -> dict[str, str]:
    """Fingerprints of a run's data, from its environment.json; empty for a new run.

    Raises:
        ValueError: the file is not one that a run has written.
    """
    if not path.exists():
        return {}
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))["data_fingerprints"]
    except (ValueError, KeyError, TypeError):
        recorded = None
    if not isinstance(recorded, dict):
        raise ValueError(
            f"{path} is damaged, it names no data_fingerprints; restore it, or set another name"
        )
    return recorded


def check_same_data(path: Path, fingerprints: dict[str, str]) -> None:
    """Compare with the data of a run, if it has started.

    Raises:
        ValueError: names the sources that have changed since.
    """
    if not path.exists():
        return
    before = recorded_fingerprints(path)
    changed = [
        name
        for name in fingerprints
        if before.get(name) != fingerprints[name] and not _not_noted(before, fingerprints, name)
    ]
    if "init_from" in fingerprints and ADAPTER in before.keys() - fingerprints.keys():
        changed.append(ADAPTER)  # the run continues an adapter, and now a plain model is named
    if changed:
        where = "" if all(name.startswith("init_from") for name in changed) else "data.sources "
        raise ValueError(
            f"{where}{', '.join(changed)} changed since {path.parent} was started; restore them, "
            "or set another name"
        )


def _not_noted(before: dict[str, str], now: dict[str, str], name: str) -> bool:
    """True if an earlier version did not record this fingerprint in a form that can be compared.

    Earlier versions did not note the held-out text, nor the weights that a run of all weights
    started from, of which the path is compared then. They noted an adapter by the bits of its
    product with the base, which depend on the processor; such a run continues from its checkpoints,
    which hold all weights.
    """
    if name not in before:
        return name.endswith(HELD_OUT) or name == "init_from"
    return now[name].startswith(ADAPTED) and not str(before[name]).startswith(ADAPTED)


def check_checkpoints_not_lost(folder: Path) -> None:
    """Refuse to overwrite the log of a run whose checkpoints are missing.

    A disk that is not mounted looks like a new run.

    Raises:
        ValueError: says how it is known that there were some.
    """
    starts, log = read_starts(folder), folder / "metrics.jsonl"
    if not starts or any((folder / "checkpoints").glob("step-*.damaged")):
        return  # the checkpointer reports damaged checkpoints
    continued = max(start["step"] for start in starts)
    proof = f"it was continued after step {continued} once" if continued else None
    every = starts[-1].get("checkpoint_every")
    if proof is None and every is not None and log.exists():
        with log.open(encoding="utf-8") as lines:
            steps = [json_row(line).get("step") for line in lines if line.endswith("\n")]
        reached = max((step for step in steps if type(step) is int), default=0)
        # A checkpoint starts only after the previous one is complete.
        if reached > 2 * every:
            proof = f"its log reaches step {reached}, with a checkpoint every {every} steps"
    if proof is not None:
        raise ValueError(
            f"{folder} holds no checkpoint, but had some ({proof}); bring them back (is a disk "
            "missing?), or set another name to start a new run"
        )


def check_same_dtype(folder: Path, dtype: str) -> None:
    """Refuse to resume in another precision, which `auto` would change with the device.

    Args:
        dtype: what would be computed in, as starts.jsonl has it.

    Raises:
        ValueError: names both.
    """
    for start in read_starts(folder)[-1:]:
        if start.get("dtype", dtype) != dtype:
            raise ValueError(
                f"{folder} was computed in {start['dtype']}, and would resume in {dtype}; set "
                f"parallel.dtype={start['dtype']}, or another name"
            )
