"""Train a sentencepiece BPE model with the conventions of Mistral-7B-v0.1.

Byte fallback, single digits, no normalisation, a dummy prefix, whitespace kept and allowed to form
pieces; `<unk>` 0, `<s>` 1, `</s>` 2, no padding. One thread and no path, so that the same texts
give the same model.
"""

import io
from collections.abc import Iterable, Iterator

from sentencepiece import SentencePieceTrainer

from tokenizer.tokenizer import check_text

LINE_CHARACTERS = 1 << 14
"""Longer lines are cut: the trainer counts positions in a word with 16 bits."""


def train_bpe(texts: Iterable[str], *, vocab_size: int) -> bytes:
    """The serialized ModelProto of a BPE model learned from texts.

    `vocab_size` counts everything: 3 special ids, 256 bytes, merged pieces, characters. ValueError
    if the characters alone are more, or the texts do not yield that many.
    """
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=_lines(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            add_dummy_prefix=True,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            character_coverage=0.99995,
            max_sentence_length=4 * LINE_CHARACTERS,  # in bytes; what is longer would be skipped
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(f"vocab_size={vocab_size} does not suit these texts: {error}") from None
    return model.getvalue()


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        check_text(text)
        for line in filter(None, text.split("\n")):
            for start in range(0, len(line), LINE_CHARACTERS):
                yield line[start : start + LINE_CHARACTERS]
