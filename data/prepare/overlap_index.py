"""Index of the protected documents: held-out documents and documents to decontaminate against.

A training document is a near copy of a protected document if it shares more than half of its
distinct 13-grams (`data.prepare.ngrams`) with that document, or contains more than half of that
document's 13-grams. A text of fewer than 13 units has no n-gram and is protected by the comparison
of folds (`data.prepare.held_out.fold`) alone. The index is one file, complete or absent, that all
processes map:

    int64 (3,)                    numbers of n-grams G, documents D and held-out documents H; the
                                  other documents are avoided
    uint64 (G,)                   n-grams, sorted; once per document that contains the n-gram
    uint64 (D - H,)               side hashes of the avoided documents, sorted
    uint64 (D - H,)               fold hashes of the avoided documents, sorted
    uint32 (G,)                   the document of each n-gram
    uint32 (D,)                   distinct n-grams of each document

Building the index takes about 40 bytes of memory per n-gram.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt32, UInt64

from data.prepare.held_out import fold_hash, normalize, side_hash
from data.prepare.ngrams import ngram_hashes
from data.records.readers import BadRecord, Position, Record, text_of
from storage.atomic import new_file

NEAR_HELD_OUT = "near copy of a held-out document"
NEAR_AVOIDED = "near copy of a document to avoid"
SAME_AS_AVOIDED = "copy of a document to avoid"
REASONS = (NEAR_HELD_OUT, NEAR_AVOIDED, SAME_AS_AVOIDED)


class ProtectedDocuments(NamedTuple):
    """Protected documents among some consecutive records."""

    grams: UInt64[np.ndarray, " grams"]
    """Distinct n-grams of each document, end to end."""
    sizes: UInt32[np.ndarray, " documents"]
    sides: UInt64[np.ndarray, " documents"]
    """Side hashes."""
    folds: UInt64[np.ndarray, " documents"]
    """Fold hashes."""
    bad: tuple[Position, str] | None
    """The first record without a text, and the reason."""
    end: Position


class ProtectedFinder:
    """Finds the protected documents; one per process.

    Args:
        held_out_fraction: share of documents that are held out; 1: take every document.
    """

    def __init__(self, text_field: str, held_out_fraction: float) -> None:
        self._text_field = text_field
        self._limit = held_out_fraction * 2**64

    def __call__(self, records: list[Record]) -> ProtectedDocuments:
        grams, sides, folds, bad = [], [], [], None
        for record in records:
            try:
                text = text_of(record, self._text_field)
            except BadRecord as reason:
                bad = bad or (record.position, str(reason))
                continue
            normalized = normalize(text)
            side = side_hash(normalized)
            if side < self._limit:
                grams.append(ngram_hashes(normalized))
                sides.append(side)
                folds.append(fold_hash(text))
        return ProtectedDocuments(
            grams=np.concatenate([np.empty(0, np.uint64), *grams]),
            sizes=np.array([len(some) for some in grams], np.uint32),
            sides=np.array(sides, np.uint64),
            folds=np.array(folds, np.uint64),
            bad=bad,
            end=records[-1].position,
        )


def write_index(
    path: Path, held_out: Iterable[ProtectedDocuments], avoided: Iterable[ProtectedDocuments]
) -> None:
    """Write the index; documents are numbered in order, held-out ones first."""
    held_out, avoided = list(held_out), list(avoided)
    parts = held_out + avoided
    grams = np.concatenate([np.empty(0, np.uint64), *(part.grams for part in parts)])
    sizes = np.concatenate([np.empty(0, np.uint32), *(part.sizes for part in parts)])
    sides = np.concatenate([np.empty(0, np.uint64), *(part.sides for part in avoided)])
    folds = np.concatenate([np.empty(0, np.uint64), *(part.folds for part in avoided)])
    order = np.argsort(grams, kind="stable")
    numbers = np.repeat(np.arange(len(sizes), dtype=np.uint32), sizes)[order]
    header = np.array([len(grams), len(sizes), len(sizes) - len(folds)], np.int64)
    with new_file(path) as file:
        for part in (header, grams[order], np.sort(sides), np.sort(folds), numbers, sizes):
            part.tofile(file)


class OverlapIndex:
    """An open index; its pages are shared by all processes that map the file."""

    def __init__(self, path: Path) -> None:
        pages = np.memmap(path, np.uint8, mode="r")
        grams, documents, self._held_out = pages[:24].view(np.int64).tolist()
        avoided = documents - self._held_out
        counts = (grams, avoided, avoided, grams, documents)
        widths = (8, 8, 8, 4, 4)
        stops = 24 + np.cumsum([width * count for width, count in zip(widths, counts, strict=True)])
        parts = np.split(np.asarray(pages), [24, *stops[:-1]])[1:]
        self._grams, self._sides, self._folds = (part.view(np.uint64) for part in parts[:3])
        self._numbers, self._sizes = (part.view(np.uint32) for part in parts[3:])

    def reason(self, text: str, normalized: str, side: int) -> str | None:
        """Reason for which a document must be skipped; None without one.

        Args:
            normalized: the text, by `data.prepare.held_out.normalize`.
            side: its side hash.
        """
        if self._equals_avoided(text, side):
            return SAME_AS_AVOIDED
        if not len(self._grams):
            return None
        copied = self._nearly_copied(ngram_hashes(normalized))
        if not len(copied):
            return None
        return NEAR_HELD_OUT if copied[0] < self._held_out else NEAR_AVOIDED

    def holds(self, text: str, grams: UInt64[np.ndarray, " grams"], side: int) -> bool:
        """True if a document is a near copy of an indexed document, or equals an avoided one.

        Args:
            grams: of the text, by `data.prepare.ngrams.ngram_hashes`.
            side: its side hash.
        """
        return self._equals_avoided(text, side) or len(self._nearly_copied(grams)) > 0

    def _equals_avoided(self, text: str, side: int) -> bool:
        # Equal folds have equal side hashes, and a fold takes ten times as long to compute.
        return _has(self._sides, side) and _has(self._folds, fold_hash(text))

    def _nearly_copied(
        self, grams: UInt64[np.ndarray, " grams"]
    ) -> UInt32[np.ndarray, " documents"]:
        """Documents that a text with these distinct n-grams nearly copies, in order."""
        found = grams[_holds(self._grams, grams)]
        if not len(found):
            return np.empty(0, np.uint32)
        first = np.searchsorted(self._grams, found)
        counts = np.searchsorted(self._grams, found, side="right") - first
        places = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
        numbers, shared = np.unique(self._numbers[places], return_counts=True)
        near = (2 * shared > len(grams)) | (2 * shared > self._sizes[numbers])
        return numbers[near]


def _has(known: UInt64[np.ndarray, " known"], number: int) -> bool:
    return bool(_holds(known, np.array([number], np.uint64)).any())


def _holds(
    known: UInt64[np.ndarray, " known"], wanted: UInt64[np.ndarray, " wanted"]
) -> np.ndarray:
    """True for each wanted number that is among the known, which are sorted."""
    if not len(known):
        return np.zeros(len(wanted), bool)
    places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return known[places] == wanted
