"""A sample of text as counted spans: runs of the base's tokens that may still merge.

New pieces merge after all pieces of the base, so growth starts from the base's own segmentation.
Between two tokens whose border lies inside no new piece nothing can merge; cut there, a corpus
falls into short spans (words, clauses), of which each is kept once, with a count.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from itertools import pairwise

import numpy as np
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import (
    ModelProto,  # pyright: ignore[reportAttributeAccessIssue] protobuf makes it at run time
)

from tokenizer.hf_export import NORMAL, SPACE, UNUSED

Span = tuple[int, ...]


class Symbols:
    """Symbols from which new pieces are merged: the base's pieces, and characters that it lacks.

    Runs of spaces that score below all other pieces (-1e9 in Mistral) are excluded: they merge
    after the new pieces, whose scores are between the two.

    Attributes:
        texts: symbol -> its text; None where nothing can merge with it (control, bytes, ...).
        new: symbols from here on are characters that the base lacks.
    """

    def __init__(self, base: ModelProto, pieces: Iterable[str]) -> None:
        """The symbols of a base that shall get some of these pieces."""
        lowest = lowest_score(base)
        model = ModelProto()
        model.CopyFrom(base)
        del model.pieces[:]
        for piece in base.pieces:
            if not (len(piece.piece) > 1 and _is_space(piece.piece) and piece.score < lowest):
                model.pieces.add().CopyFrom(piece)
        self.new = len(model.pieces)
        known = {p.piece for p in model.pieces}
        for character in sorted({c for piece in pieces for c in piece} - known):
            model.pieces.add(piece=character, type=NORMAL, score=lowest)
        self.texts = [p.piece if p.type == NORMAL else None for p in model.pieces]
        self._processor = SentencePieceProcessor(model_proto=model.SerializeToString())
        self._bare = bare_processor(model)

    def cut(self, piece: str) -> list[str] | None:
        """The symbols that a piece begins as; None if it cannot be merged from its characters.

        So it is where the base cuts out a user-defined symbol, or rewrites what it reads.
        """
        texts = [self.texts[symbol] for symbol in self._bare.encode(piece)]
        cut = [text for text in texts if text is not None]
        return cut if len(cut) == len(texts) and "".join(cut) == piece else None

    def spans(self, texts: Iterable[str], pieces: Iterable[str]) -> Counter[Span]:
        """Span -> its count in the texts: all places where one of the pieces could be merged.

        A span has two symbols or more, or is one character that the base lacks.
        """
        borders = {ord(a) << 21 | ord(b) for piece in pieces for a, b in pairwise(piece)}
        inner = np.array([-1, *sorted(borders)])
        first = np.array([ord(text[0]) if text else -1 for text in self.texts])
        last = np.array([ord(text[-1]) if text else -1 for text in self.texts])
        counts: Counter[bytes] = Counter()
        for text in texts:
            symbols = np.array(self._processor.encode(text), np.int32)
            border = last[symbols[:-1]] << 21 | first[symbols[1:]]
            cut = inner[np.searchsorted(inner, border, side="right") - 1] != border
            cut |= border < 0
            edges = [0, *(np.flatnonzero(cut) + 1).tolist(), len(symbols)]
            counts.update(
                symbols[start:stop].tobytes()
                for start, stop in pairwise(edges)
                if stop - start > 1 or (stop > start and symbols[start] >= self.new)
            )
        return Counter({tuple(np.frombuffer(s, np.int32).tolist()): n for s, n in counts.items()})

    def occurrences(self, spans: Counter[Span], pieces: Collection[str]) -> Counter[str]:
        """Number of occurrences of each piece in the spans, overlaps counted."""
        lengths: dict[str, set[int]] = defaultdict(set)
        for piece in pieces:
            lengths[piece[0]].add(len(piece))
        found: Counter[str] = Counter()
        for span, n in spans.items():
            text = "".join(self.texts[symbol] or "\n" for symbol in span)
            for start, character in enumerate(text):
                for length in lengths.get(character, ()):
                    piece = text[start : start + length]
                    if len(piece) == length and piece in pieces:
                        found[piece] += n
        return found

    def merged(self, spans: Iterable[Span], pieces: Collection[str]) -> set[str]:
        """Those of the pieces that merging could make somewhere in the spans.

        A new piece joins whole symbols, so one that is merely spelt across their borders is none.
        """
        longest = max(map(len, pieces), default=0)
        found: set[str] = set()
        for span in spans:
            for start, symbol in enumerate(span):
                piece, joined = self.texts[symbol] or "", symbol >= self.new
                for following in (*span[start + 1 :], None):
                    if joined and piece in pieces:
                        found.add(piece)
                    text = following is not None and self.texts[following]
                    if not text or len(piece) + len(text) > longest:
                        break
                    piece, joined = piece + text, True
        return found


def lowest_score(base: ModelProto) -> float:
    """The lowest score of a base piece, spaces and runs of them aside."""
    return min(
        p.score for p in base.pieces if p.type in (NORMAL, UNUSED) and not _is_space(p.piece)
    )


def bare_processor(model: ModelProto) -> SentencePieceProcessor:
    """One that takes a text as it is: no dummy prefix, no space removed."""
    bare = ModelProto()
    bare.CopyFrom(model)
    bare.normalizer_spec.add_dummy_prefix = False
    bare.normalizer_spec.remove_extra_whitespaces = False
    return SentencePieceProcessor(model_proto=bare.SerializeToString())


def _is_space(piece: str) -> bool:
    return not piece.strip(SPACE)
