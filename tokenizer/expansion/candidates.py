"""Candidate pieces for a larger vocabulary: learned from text, or read from files.

Pieces are learned (`learn_pieces`) from a sample of the corpora (`sample_texts`), and `expand`
counts usefulness on the same sample. Pieces of another sentencepiece model (`model_pieces`) and
word lists (`word_pieces`) are further candidates; `expand` adds only pieces that save tokens there.
"""

import hashlib
import heapq
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError
from sentencepiece import SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import (
    ModelProto,  # pyright: ignore[reportAttributeAccessIssue] protobuf makes it at run time
)

from tokenizer.hf_export import BPE, NORMAL, SPACE
from tokenizer.tokenizer import check_text
from tokenizer.train import LINE_CHARACTERS


@dataclass(frozen=True)
class Source:
    """Texts that share a weight: their part of the sample's bytes."""

    texts: Iterable[str]
    weight: float = 1.0


def sample_texts(
    sources: Mapping[str, Source], *, byte_budget: int, seed: int
) -> dict[str, list[str]]:
    """Texts of at most `byte_budget` UTF-8 bytes by source, each one's share by its weight.

    Which texts are drawn depends on the seed and on the texts, not on their order; each source is
    read once, keeping no more than its share. A source smaller than its share gives all it has.
    ValueError: no source, a source without text, a text of another type than str, a weight or
    budget that is not positive.
    """
    if byte_budget <= 0:
        raise ValueError(f"byte_budget={byte_budget}: give the bytes of text to sample, say 100e6")
    if not sources:
        raise ValueError("sources is empty: name at least one corpus to grow the vocabulary on")
    for name, source in sources.items():
        if not source.weight > 0:
            raise ValueError(f"weight={source.weight} of source {name!r}: give a positive number")
    total = sum(source.weight for source in sources.values())
    sample = {}
    for name, source in sources.items():
        drawn = _draw(source.texts, int(byte_budget * source.weight / total), seed)
        if not any(drawn):
            raise ValueError(
                f"source {name!r} gives no text (its share is {source.weight / total:.3g} of "
                f"byte_budget={byte_budget}); check its files, or leave it out"
            )
        sample[name] = drawn
    return sample


def _draw(texts: Iterable[str], share: int, seed: int) -> list[str]:
    """The texts whose hash comes first, until the share is full; the last of them is cut."""
    kept: list[tuple[int, bytes]] = []  # a heap, the last in order of hash at its top
    size = 0
    for text in texts:
        check_text(text)
        content = text.encode()
        key = str(seed).encode()
        digest = hashlib.blake2b(content, digest_size=8, key=key).digest()
        heapq.heappush(kept, (-int.from_bytes(digest), content))
        size += len(content)
        while kept and size - len(kept[0][1]) >= share:
            size -= len(heapq.heappop(kept)[1])
    drawn = [content for _, content in sorted(kept, reverse=True)]
    if drawn and size > share:
        drawn[-1] = drawn[-1][: share - size]
    return [content.decode(errors="ignore") for content in drawn]


def learn_pieces(texts: Iterable[str], base: ModelProto, *, vocab_size: int) -> list[str]:
    """Pieces of a sentencepiece BPE model learned from texts, the most frequent merges first.

    It cuts text where the base does. `vocab_size` counts bytes and characters too, all of which it
    takes; fewer pieces come back if the texts yield no more. One thread and no path, so that the
    same texts give the same pieces. ValueError: no text, a text of another type than str,
    `vocab_size` below the number of characters, or a base that `check_base` refuses.
    """
    check_base(base)
    trainer, normalizer = base.trainer_spec, base.normalizer_spec
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=_lines(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            byte_fallback=trainer.byte_fallback,
            split_digits=trainer.split_digits,
            split_by_number=trainer.split_by_number,
            split_by_unicode_script=trainer.split_by_unicode_script,
            split_by_whitespace=trainer.split_by_whitespace,
            allow_whitespace_only_pieces=trainer.allow_whitespace_only_pieces,
            max_sentencepiece_length=trainer.max_sentencepiece_length,
            normalization_rule_name="identity",
            add_dummy_prefix=normalizer.add_dummy_prefix,
            remove_extra_whitespaces=normalizer.remove_extra_whitespaces,
            max_sentence_length=4 * LINE_CHARACTERS,  # in bytes; what is longer would be skipped
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(f"vocab_size={vocab_size} does not suit these texts: {error}") from None
    learned = ModelProto()
    learned.ParseFromString(model.getvalue())
    return _pieces(learned)


def learned_size(texts: Iterable[str], *, merges: int) -> int:
    """The `vocab_size` with which `learn_pieces` finds about `merges` merges.

    Characters, bytes and special pieces come first in a sentencepiece model.
    """
    return len({character for text in texts for character in text}) + 256 + 3 + merges


def model_pieces(path: Path) -> list[str]:
    """The pieces of a sentencepiece model of any kind; ValueError if the file is none."""
    return _pieces(read_model(path))


def word_pieces(words: Iterable[str]) -> list[str]:
    """The words of a list as pieces, each with and without a space before it."""
    pieces = []
    for word in words:
        check_text(word)
        piece = word.strip().replace(" ", SPACE)
        if piece:
            pieces += [piece, SPACE + piece]
    return pieces


def read_model(path: Path) -> ModelProto:
    """A sentencepiece model file; ValueError if it is none."""
    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (DecodeError, OSError) as error:
        raise ValueError(f"{path} is not a sentencepiece model: {error}") from None
    if not model.pieces:
        raise ValueError(f"{path} is not a sentencepiece model: it has no pieces")
    return model


def check_base(base: ModelProto) -> None:
    """ValueError unless new merges can follow this model's own."""
    if base.trainer_spec.model_type != BPE:
        kind = base.trainer_spec.ModelType.Name(base.trainer_spec.model_type)
        raise ValueError(
            f"base: its model_type is {kind}, and only BPE can be grown by merges; take another "
            "base (the pieces of this one can be candidates)"
        )
    if base.normalizer_spec.precompiled_charsmap:
        raise ValueError(
            f"base: its normaliser {base.normalizer_spec.name!r} has a character map, which no "
            "tokenizer.json can follow; take a base with the identity normaliser"
        )


def _pieces(model: ModelProto) -> list[str]:
    return [p.piece for p in model.pieces if p.type == NORMAL]


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        check_text(text)
        for line in filter(None, text.split("\n")):
            for start in range(0, len(line), LINE_CHARACTERS):
                yield line[start : start + LINE_CHARACTERS]
