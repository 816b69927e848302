"""Choice and order of new pieces: BPE training, continued from the base.

BPE builds a piece only by joining two neighbours, so a piece needs parts that are pieces, and these
must win inside it. Appending a ready list of pieces therefore leaves rows that no text reaches
(data.md, section 4: 305 of 16,388). Here pieces are not appended but merged, as training would do
it (Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units"): starting
from the base's tokens of a sample, the pair of neighbours that is met most often becomes a piece,
everywhere at once, then the next. Only *admissible* pieces can arise: the candidates, and the
joins of neighbouring base tokens inside a candidate, which are its possible parts.

What follows from it:

- Every piece is reachable. What happens within a span before a merge crosses its borders depends on
  that span alone. So a piece that arose somewhere from two parts arises from the same two when it
  is encoded by itself, and later pieces, scored lower, cannot prevent it.
- A piece's count is what it saves: every merge leaves one token fewer. A character that the base
  spells in b bytes saves b - 1 tokens each time; this is its count (or 1, for b = 1).
- Counts never rise during merging, and a part is counted at least as often as the piece made of
  it. So order of merging, order of usefulness and order of dependency are one order, and taking
  its first N is the greedy choice of N that keeps dependencies.
- A part that is not a candidate arises if its own count is sufficient, which it is whenever the
  count of its piece is. If no candidate was built from it, the part is excluded and merging starts
  again, because its symbols can now join otherwise. This repeats until no such part is left.
- A piece by itself is built from its own parts, their parts, and nothing else. So any choice that
  keeps dependencies leaves its pieces reachable, in the order in which they were merged.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

from tokenizer.expansion.spans import Span, Symbols

Pair = tuple[int, int]


class Merge(NamedTuple):
    """A new piece, the tokens of the sample it saves, and the two pieces it is joined from.

    A character that the base lacks has no parts.
    """

    piece: str
    saves: int
    parts: tuple[str, ...]


def choose_merges(
    spans: Counter[Span],
    symbols: Symbols,
    candidates: Collection[str],
    parts: Collection[str],
    *,
    count: int,
    min_frequency: int,
) -> list[Merge]:
    """The `count` most useful pieces in order of merging; fewer if the sample yields no more.

    Candidates, and such parts as one of these candidates is built on: in the last rows perhaps of
    one which has itself no room. Each was met `min_frequency` times when it was merged.
    """
    admissible = {*candidates, *parts}
    while True:
        merges = _merge(spans, symbols, admissible, min_frequency)
        needed = set(candidates)
        for merge in reversed(merges):
            if merge.piece in needed:
                needed.update(merge.parts)
        needless = {merge.piece for merge in merges if merge.parts} - needed
        if not needless:
            break
        admissible -= needless
    # A character joins nothing. One without use may find some in a later round: it leaves last.
    merges = [merge for merge in merges if merge.piece in needed]
    chosen = _first(merges, candidates, count)
    return _replayed(spans, symbols, [merge for merge in merges if merge.piece in chosen])


def possible_parts(cut: Sequence[str]) -> set[str]:
    """Possible parts of a piece: runs of neighbours among the symbols of its first cut."""
    return {
        "".join(cut[start:stop])
        for start in range(len(cut))
        for stop in range(start + 1, len(cut) + 1)
        if stop - start < len(cut)
    }


def _merge(
    spans: Counter[Span], symbols: Symbols, admissible: set[str], min_frequency: int
) -> list[Merge]:
    """Continue BPE until no pair is left that is frequent."""
    sample = _Sample(spans, symbols, admissible)
    # Ties: the shorter first, for it may be a part of the longer; then by text, to be determined.
    queue: list[tuple[int, int, str, Pair | None]] = [
        (-n, len(sample.join(pair)), sample.join(pair), pair) for pair, n in sample.counts.items()
    ]
    for character, n in _missing_characters(spans, symbols, admissible).items():
        if n >= min_frequency:
            queue.append((-n * max(1, len(character.encode()) - 1), 1, character, None))
    heapq.heapify(queue)
    merges: list[Merge] = []
    while queue:
        negative, length, piece, pair = heapq.heappop(queue)
        if pair is None:
            merges.append(Merge(piece, -negative, ()))
            continue
        n = sample.counts[pair]
        if n < min_frequency:
            continue
        if n != -negative:  # other merges have taken some of it
            heapq.heappush(queue, (-n, length, piece, pair))
            continue
        merges.append(Merge(piece, n, tuple(sample.text(symbol) for symbol in pair)))
        for new in sample.merge(pair):
            joined = sample.join(new)
            heapq.heappush(queue, (-sample.counts[new], len(joined), joined, new))
    return merges


def _first(merges: Sequence[Merge], candidates: Collection[str], count: int) -> set[str]:
    """The first candidates that have room together with what they are built on, `count` in all."""
    parts = {merge.piece: merge.parts for merge in merges}
    chosen: set[str] = set()
    for merge in merges:
        if merge.piece not in candidates:
            continue
        family, open = set(), [merge.piece]
        while open:
            piece = open.pop()
            if piece in parts and piece not in chosen and piece not in family:
                family.add(piece)
                open += parts[piece]
        if len(chosen) + len(family) <= count:
            chosen |= family
    left = (merge.piece for merge in merges if merge.piece not in chosen)
    return chosen.union(islice(left, count - len(chosen)))


def _replayed(spans: Counter[Span], symbols: Symbols, merges: Sequence[Merge]) -> list[Merge]:
    """The same pieces in the same order, with what they save where they are the only ones."""
    sample = _Sample(spans, symbols, {merge.piece for merge in merges})
    ids = {text: symbol for symbol, text in enumerate(symbols.texts) if text is not None}
    replayed = []
    for merge in merges:
        if merge.parts:
            pair = (ids[merge.parts[0]], ids[merge.parts[1]])
            merge = merge._replace(saves=sample.counts[pair])
            ids[merge.piece] = sample.size
            sample.merge(pair)
        replayed.append(merge)
    return replayed


def _missing_characters(
    spans: Counter[Span], symbols: Symbols, admissible: set[str]
) -> Counter[str]:
    counts: Counter[str] = Counter()
    for span, n in spans.items():
        for symbol in span:
            text = symbols.texts[symbol]
            if symbol >= symbols.new and text in admissible:
                counts[text] += n
    return counts


class _Sample:
    """The spans during merging, and the count of each pair in them that may merge."""

    def __init__(self, spans: Counter[Span], symbols: Symbols, admissible: set[str]) -> None:
        self._texts = list(symbols.texts)
        self._first_new = symbols.new
        self._admissible = admissible
        self._mergeable: dict[Pair, bool] = {}
        self._spans = list(spans)
        self._weights = list(spans.values())
        self.counts: Counter[Pair] = Counter()
        self._where: dict[Pair, list[int]] = defaultdict(list)
        for at, (span, n) in enumerate(spans.items()):
            for pair in self._pairs(span):
                self.counts[pair] += n
                self._where[pair].append(at)

    @property
    def size(self) -> int:
        """Symbols so far; the next merge makes the one of this number."""
        return len(self._texts)

    def text(self, symbol: int) -> str:
        return self._texts[symbol] or ""

    def join(self, pair: Pair) -> str:
        return self.text(pair[0]) + self.text(pair[1])

    def merge(self, pair: Pair) -> list[Pair]:
        """Join a pair wherever it stands, from the left; the pairs that come about, with counts."""
        symbol = len(self._texts)
        self._texts.append(self.join(pair))
        new: dict[Pair, None] = {}
        for at in dict.fromkeys(self._where.pop(pair, ())):
            before, n = self._spans[at], self._weights[at]
            after = _joined(before, pair, symbol)
            if len(after) == len(before):
                continue  # an earlier merge took the pair away
            self._spans[at] = after
            for old in self._pairs(before):
                self.counts[old] -= n
            for kept in self._pairs(after):
                self.counts[kept] += n
                if symbol in kept:
                    self._where[kept].append(at)
                    new[kept] = None
        return list(new)

    def _pairs(self, span: Span) -> list[Pair]:
        """The pairs that may merge; of a run of one symbol every other, since they overlap."""
        pairs = []
        previous = None
        for pair in pairwise(span):
            if pair == previous and pair[0] == pair[1]:
                previous = None
                continue
            previous = pair
            if pair not in self._mergeable:
                self._mergeable[pair] = self._may_merge(pair)
            if self._mergeable[pair]:
                pairs.append(pair)
        return pairs

    def _may_merge(self, pair: Pair) -> bool:
        """A character that the base lacks may be no piece, and then nothing can be built on it."""
        are_pieces = all(s < self._first_new or self._texts[s] in self._admissible for s in pair)
        return are_pieces and self.join(pair) in self._admissible


def _joined(span: Span, pair: Pair, symbol: int) -> Span:
    joined = []
    at = 0
    while at < len(span):
        if span[at : at + 2] == pair:
            joined.append(symbol)
            at += 2
        else:
            joined.append(span[at])
            at += 1
    return tuple(joined)
