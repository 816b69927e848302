"""Folders that vouch for themselves: a marker holds the size and digest of every file.

The marker is written last, and the folder gets its name after that; so a folder of this name is
complete, and what has happened to it since can be told.
"""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch.distributed.checkpoint import FileSystemWriter, SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from data.shards import sha256_of
from model.durable import make_durable

MARKER = "COMPLETE.json"
THREADS = 4
"""That write and digest for one process: a core digests more slowly than a good disk writes."""


def finished(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every finished checkpoint, oldest first."""
    numbers = [(path.name.removeprefix("step-"), path) for path in folder.glob("step-*")]
    return sorted((int(n), path) for n, path in numbers if n.isdigit() and path.is_dir())


class Writer(FileSystemWriter):
    """Writes a few files at a time, and leaves it to `digests` to force them to disk."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, thread_count=THREADS, sync_files=False)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """What torch does, but not its silence: it counts what a failed thread has not written as
        never asked for.

        Raises:
            OSError: something could not be written; the thread has printed why.
        """
        future = super().write_data(plan, planner)
        lost = {item.index for item in plan.items} - {result.index for result in future.wait()}
        if lost:
            raise OSError(f"{len(lost)} of {len(plan.items)} tensors could not be written")
        return future


def digests(paths: Iterable[Path]) -> dict[str, dict]:
    """Size and SHA-256 of files, which are forced to disk meanwhile."""
    paths = list(paths)
    with ThreadPoolExecutor(2 * THREADS) as pool:
        durable = pool.map(make_durable, paths)
        sums = pool.map(sha256_of, paths)
        found = {
            path.name: {"size": path.stat().st_size, "sha256": digest}
            for path, digest in zip(paths, sums, strict=True)
        }
        list(durable)  # raises what went wrong
    return found


def seal(folder: Path, written: list[dict[str, dict]]) -> None:
    """Write the marker that makes a checkpoint complete."""
    files = digests([folder / ".metadata"])
    for part in written:
        files |= part
    marker = folder / MARKER
    marker.write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
    make_durable(marker)
    make_durable(folder)


def read_marker(folder: Path) -> dict[str, dict]:
    """What the marker promises; nothing if it cannot be read, whatever has happened to it."""
    try:
        content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict):
        return {}
    whole = all(isinstance(f, dict) and f.keys() == {"size", "sha256"} for f in files.values())
    return files if whole else {}


def differences(folder: Path, promised: dict[str, dict]) -> list[str | None]:
    """`difference` of each of some files, several at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        paths = [folder / name for name in promised]
        return list(pool.map(difference, paths, promised.values()))


def difference(path: Path, promised: dict) -> str | None:
    """How a file differs from what the marker promises, or None."""
    if not path.is_file():
        return f"{path.name} is missing"
    if (size := path.stat().st_size) != promised["size"]:
        return f"{path.name} has {size} bytes, not {promised['size']}"
    if sha256_of(path) != promised["sha256"]:
        return f"{path.name} has changed since it was written"
    return None
