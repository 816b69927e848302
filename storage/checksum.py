"""Checksums of files."""

import hashlib
import zlib
from pathlib import Path

PIECE = 1 << 20
"""Bytes per step, few enough to stay in the cache of a core."""


def sha256_of(path: Path) -> str:
    """SHA-256 of the content of a file, as a hexadecimal string."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def crc32_of(path: Path) -> str:
    """CRC-32 of the content of a file, in eight hexadecimal digits."""
    value = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            value = zlib.crc32(piece, value)
    return f"{value:08x}"
