"""Manifest of a checkpoint folder: COMPLETE.json, with size and digest of every file.

The marker is written last, and the folder gets its name after that; so a folder of this name is
complete, and what has happened to it since can be told.
"""

import io
import json
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import torch
from torch.distributed.checkpoint import FileSystemWriter, SavePlan, SavePlanner
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from storage.atomic import fsync, fsync_while_writing, write_json
from storage.checksum import crc32_of, sha256_of

MARKER = "COMPLETE.json"
THREADS = 4
"""That write and digest for one process: a core does both more slowly than a good disk writes."""
PIECE = 1 << 20
"""Bytes that are digested at a time, which a core still has in its cache when it writes them."""


def finished(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every finished checkpoint, oldest first."""
    numbers = [(path.name.removeprefix("step-"), path) for path in folder.glob("step-*")]
    return sorted((int(n), path) for n, path in numbers if n.isdigit() and path.is_dir())


class Writer(FileSystemWriter):
    """Writes a few files at a time, digests them on their way and forces them to disk meanwhile.

    Attributes:
        files: size and CRC-32 by name, of what `write_data` has written.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, thread_count=THREADS, sync_files=False)
        self._folder = folder
        self.fs = _DigestedFiles()
        self.files: dict[str, dict] = {}

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write as torch does, and raise every error of the disk.

        torch itself ignores the tensors of a thread that failed, and reports a full disk as an
        unexpected position.

        Raises:
            OSError: something could not be written.
        """
        with fsync_while_writing(self._folder, f"{plan.storage_data.prefix}*"):
            try:
                future = super().write_data(plan, planner)
            except (OSError, RuntimeError) as error:  # torch's archive raises the latter
                if self.fs.failure is None:
                    raise
                raise self.fs.failure from error
            lost = {item.index for item in plan.items} - {result.index for result in future.wait()}
            if lost:
                words = f"{len(lost)} of {len(plan.items)} tensors could not be written"
                raise self.fs.failure or OSError(words)
        self.files = dict(self.fs.digests)
        return future


class _DigestedFiles(FileSystem):
    """torch's access to files, which also remembers what was written.

    Attributes:
        digests: size and CRC-32 of each file, by name.
        failure: the first error of the disk; nothing is written any more after it.
    """

    def __init__(self) -> None:
        self.digests: dict[str, dict] = {}
        self.failure: OSError | None = None

    @contextmanager
    def create_stream(self, path: str | PathLike, mode: str) -> Iterator[io.IOBase]:
        # torch.save's checksums inside of the file would be a second digest. From 2.12 on the
        # option counts for one thread, and each that writes comes by here; before, for the process,
        # which saves nothing else in this way.
        torch.serialization.set_crc32_options(False)
        assert mode == "wb"
        with self.noting_failure(), _DigestedFile(path, self) as file:
            yield file
        self.digests[Path(path).name] = {"size": file.size, "crc32": f"{file.crc32:08x}"}

    @contextmanager
    def noting_failure(self) -> Iterator[None]:
        """Remember an error of the disk, which torch may replace by another error."""
        if self.failure is not None:
            raise self.failure
        try:
            yield
        except OSError as error:
            self.failure = self.failure or error
            raise


class _DigestedFile(io.BufferedWriter):
    def __init__(self, path: str | PathLike, files: _DigestedFiles) -> None:
        super().__init__(io.FileIO(path, "wb"))
        self.size, self.crc32 = 0, 0
        self._files = files

    def write(self, content) -> int:  # noqa: ANN001 (bytes of any kind)
        view = memoryview(content).cast("B")
        with self._files.noting_failure():
            for start in range(0, len(view), PIECE):
                piece = view[start : start + PIECE]
                self.crc32 = zlib.crc32(piece, self.crc32)
                super().write(piece)
        self.size += len(view)
        return len(view)


def reason(error: BaseException) -> str:
    """Text of an error without the traces that torch adds."""
    if not isinstance(error, CheckpointException):
        return str(error)
    processes: dict[str, list[str]] = {}
    for rank, (cause, _) in error.failures.items():
        told = isinstance(cause, OSError | ValueError)
        words = str(cause) if told else f"{type(cause).__name__}: {cause}"
        processes.setdefault(words, []).append(str(rank))
    return "; ".join(f"process {', '.join(r)}: {words}" for words, r in processes.items())


def write_manifest(folder: Path, written: list[dict[str, dict]]) -> None:
    """Write the marker that makes a checkpoint complete."""
    metadata = folder / ".metadata"
    fsync(metadata)
    size, digest = metadata.stat().st_size, crc32_of(metadata)
    files = {metadata.name: {"size": size, "crc32": digest}}
    for part in written:
        files |= part
    write_json(folder / MARKER, {"files": files})


def read_marker(folder: Path) -> dict[str, dict]:
    """Sizes and digests of the marker; empty if the marker is missing or damaged."""
    try:
        content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict):
        return {}
    whole = all(
        isinstance(f, dict) and "size" in f and f.keys() - {"size"} in ({"crc32"}, {"sha256"})
        for f in files.values()
    )
    return files if whole else {}


def differences(folder: Path, promised: dict[str, dict]) -> list[str | None]:
    """`difference` of each of some files, several at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        paths = [folder / name for name in promised]
        return list(pool.map(difference, paths, promised.values()))


def difference(path: Path, promised: dict) -> str | None:
    """Difference of a file from its size and digest in the marker, or None."""
    if not path.is_file():
        return f"{path.name} is missing"
    if (size := path.stat().st_size) != promised["size"]:
        return f"{path.name} has {size} bytes, not {promised['size']}"
    # Until November 2026 the marker held SHA-256, for which most processors are slower than disks.
    same = (
        crc32_of(path) == promised["crc32"]
        if "crc32" in promised
        else sha256_of(path) == promised["sha256"]
    )
    if not same:
        return f"{path.name} has changed since it was written"
    return None
