"""Grow a sentencepiece BPE vocabulary: choose new pieces and append them to the base's ModelProto.

Nothing of the base changes but `trainer_spec.vocab_size`. New rows follow its last id in order of
usefulness; their scores fall from just below the lowest of the base's, so every merge of the base
comes first, and text in which no new piece is met keeps its ids. How pieces and order are chosen,
and why all of them are reachable: `tokenizer/expansion/merges.py`. PreparedLLM (Big Earth Data
8(4), 2024) and
Chinese-Mistral grew their vocabularies so (method.md, sections 2 and 3); the widespread recipe,
score 0 for every piece of another model, puts new merges before the base's and breaks up English.

Reserved rows `<|sym1|>`, `<|sym2|>`, ... are at the end, with the type UNUSED: no text is encoded
to one, not even the literal, and sentencepiece, this project's `Tokenizer` and the exported HF
files agree on that. User-defined symbols would be cut out of plain text; control symbols would make
HF encode the literal as the id. To use a reserved row later, rename it and change its type.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from sentencepiece.sentencepiece_model_pb2 import (
    ModelProto,  # pyright: ignore[reportAttributeAccessIssue] protobuf makes it at run time
)

from tokenizer.expansion.candidates import check_base
from tokenizer.expansion.merges import choose_merges, possible_parts
from tokenizer.expansion.rules import Rules
from tokenizer.expansion.spans import Symbols, bare_processor, lowest_score
from tokenizer.hf_export import NORMAL, UNUSED, fast_files
from tokenizer.tokenizer import check_text


@dataclass(frozen=True)
class NewPiece:
    """A row that was added."""

    id: int
    piece: str
    origins: tuple[str, ...]
    """The lists that have it as a candidate; none for a mere part of candidates."""
    saves: int
    """Tokens that it saves on the sample, given all pieces before it."""
    parts: tuple[str, ...]
    """The two pieces it is merged from; none for a character that the base lacks."""


@dataclass(frozen=True)
class Expansion:
    """A grown tokenizer, and how it came about."""

    model: bytes
    """The serialized ModelProto."""
    pieces: list[NewPiece]
    """Most useful first, which is also the order of ids and scores."""
    reserved: list[str]
    refused: dict[str, list[str]]
    """Rule -> the candidates it refused, each once, under the first rule that it breaks:
    present, space, length, digits, punctuation, script (see `Rules`), then
    unencodable: the base cuts it up before merging (user-defined symbols, its normaliser);
    revives: with it, a base piece that no text reached would be reached;
    rare: below `min_frequency` in the sample;
    protected: could be merged in a protected text;
    outranked: merged less often than `min_frequency` or than all that were taken."""


def expand(
    base: ModelProto,
    candidates: Mapping[str, Iterable[str]],
    texts: Iterable[str],
    *,
    target_vocab_size: int,
    rules: Rules,
    reserved: int = 0,
    protected: Iterable[str] = (),
) -> Expansion:
    """Grow `base` to `target_vocab_size`, `reserved` rows included, by the most useful candidates.

    `candidates` maps an origin (a name for the report) to pieces, spaces in them written U+2581;
    usefulness is counted on `texts`. `protected` texts keep their ids: nothing is added that could
    be merged in them. The same arguments give the same bytes. ValueError: a base
    that has no BPE or no HF form, no room between base and target, no texts, a text or piece of
    another type than str, a target larger than the candidates allow.
    """
    room = check_room(base, target_vocab_size, reserved)
    texts, protected = _check_texts(texts), list(protected)
    fast_files(base)  # what cannot be exported is refused before the work is done
    names = _reserved_names(base, reserved)
    present = {p.piece for p in base.pieces} | {*names}
    reviving = _reviving(base, names)

    sieve = _Sieve(candidates, present, rules)
    symbols = Symbols(base, sieve.origins)
    cuts = {piece: symbols.cut(piece) for piece in sieve.origins}
    sieve.refuse("unencodable", [piece for piece, cut in cuts.items() if cut is None])
    sieve.refuse("revives", reviving)
    spans = symbols.spans(texts, sieve.origins)
    found = symbols.occurrences(spans, sieve.origins)
    sieve.refuse("rare", [p for p in sieve.origins if found[p] < rules.min_frequency])

    parts = {part for piece in sieve.origins for part in possible_parts(cuts[piece] or [])}
    kept_out = symbols.merged(symbols.spans(protected, sieve.origins), {*sieve.origins, *parts})
    sieve.refuse("protected", kept_out)
    parts -= present | reviving | kept_out
    merges = choose_merges(
        spans,
        symbols,
        sieve.origins,
        {part for part in parts if rules.refusal(part) is None},
        count=room,
        min_frequency=rules.min_frequency,
    )
    if len(merges) < room:
        raise ValueError(
            f"target_vocab_size={target_vocab_size}: the candidates allow "
            f"{target_vocab_size - room + len(merges)} at min_frequency={rules.min_frequency} on "
            "these texts; set it no higher, or give more candidates or more text"
        )
    pieces = [
        NewPiece(
            id, merge.piece, tuple(sieve.origins.get(merge.piece, ())), merge.saves, merge.parts
        )
        for id, merge in enumerate(merges, start=len(base.pieces))
    ]
    sieve.refuse("outranked", sieve.origins.keys() - {merge.piece for merge in merges})
    return Expansion(_appended(base, pieces, names), pieces, names, sieve.refused)


def check_room(base: ModelProto, target_vocab_size: int, reserved: int) -> int:
    """The rows there are for new pieces; ValueError if there are none."""
    check_base(base)
    if reserved < 0:
        raise ValueError(f"reserved={reserved}: give the number of rows to reserve, 0 for none")
    room = target_vocab_size - len(base.pieces) - reserved
    if room < 1:
        raise ValueError(
            f"target_vocab_size={target_vocab_size}: the base has {len(base.pieces)} pieces, and "
            f"{reserved} are reserved; set it above {len(base.pieces) + reserved}"
        )
    return room


def padded_rows(vocab_size: int, multiple: int) -> int:
    """Rows of the model's embeddings for a vocabulary: the next multiple of `multiple`.

    The tokenizer has no pieces for the rows in between. ValueError if `multiple` is not positive.
    """
    if multiple < 1:
        raise ValueError(f"pad_to_multiple_of={multiple}: give a positive number, 1 for no padding")
    return -(-vocab_size // multiple) * multiple


class _Sieve:
    """The candidates that are left, and those that a rule has refused."""

    def __init__(
        self, candidates: Mapping[str, Iterable[str]], present: set[str], rules: Rules
    ) -> None:
        self.origins: dict[str, dict[str, None]] = {}
        """Piece -> the lists that have it, in the order given."""
        self.refused: dict[str, list[str]] = {}
        for origin, pieces in candidates.items():
            for piece in pieces:
                check_text(piece)
                self.origins.setdefault(piece, {})[origin] = None
        by_rule: dict[str, list[str]] = {}
        for piece in self.origins:
            rule = "present" if piece in present else rules.refusal(piece)
            if rule is not None:
                by_rule.setdefault(rule, []).append(piece)
        for rule, pieces in by_rule.items():
            self.refuse(rule, pieces)

    def refuse(self, rule: str, pieces: Iterable[str]) -> None:
        """Move such of these pieces as are left to the refused ones."""
        pieces = set(pieces)
        self.refused[rule] = [piece for piece in self.origins if piece in pieces]
        for piece in self.refused[rule]:
            del self.origins[piece]


def _check_texts(texts: Iterable[str]) -> list[str]:
    texts = list(texts)
    for text in texts:
        check_text(text)
    if not any(texts):
        raise ValueError("texts is empty: give the texts on which usefulness is counted")
    return texts


def _reserved_names(base: ModelProto, count: int) -> list[str]:
    """`<|sym1|>` and so on, past those that an earlier growth has reserved."""
    present = {p.piece for p in base.pieces}
    names = (f"<|sym{number}|>" for number in itertools.count(1))
    return list(itertools.islice((name for name in names if name not in present), count))


def _reviving(base: ModelProto, reserved: Iterable[str]) -> set[str]:
    """Parts of unreachable pieces of the base and of reserved pieces, which no new piece may equal.

    With such a part, merging would reach the piece, and at the base's high score.
    """
    bare = bare_processor(base)
    unreached = [
        p.piece
        for id, p in enumerate(base.pieces)
        if p.type in (NORMAL, UNUSED) and bare.encode(p.piece) != [id]
    ]
    return {
        part
        for piece in (*unreached, *reserved)
        for at in range(1, len(piece))
        for part in (piece[:at], piece[at:])
    }


def _appended(base: ModelProto, pieces: Iterable[NewPiece], reserved: Iterable[str]) -> bytes:
    """The grown model; AssertionError if a new piece were out of reach."""
    grown = ModelProto()
    grown.CopyFrom(base)
    rows = [(new.piece, NORMAL) for new in pieces] + [(name, UNUSED) for name in reserved]
    lowest = lowest_score(base)
    # Scores are float32: beyond 2^24 they need steps wider than 1 to differ.
    step = max(1.0, 2 * float(np.spacing(np.float32(abs(lowest) + len(rows)))))
    for number, (piece, type) in enumerate(rows, start=1):
        grown.pieces.add(piece=piece, type=type, score=lowest - step * number)
    grown.trainer_spec.vocab_size = len(grown.pieces)
    bare = bare_processor(grown)
    for new in pieces:
        assert bare.encode(new.piece) == [new.id], new
    return grown.SerializeToString(deterministic=True)
