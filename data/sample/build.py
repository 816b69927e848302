"""The embedded sample on disk: texts, tokenizer and prepared sources, written at first use.

<root>/sample.json     what was built; a folder built otherwise is refused
       corpus/         one .jsonl per source, of documents or of conversations; held_out/ has the
                       held-out documents of each source, which no other source contains
       tokenizer/      trained on the general English side only, so that there is something for
                       vocabulary growth to do
       <source>/       prepared shards
"""

import json
from collections.abc import Iterator
from pathlib import Path

from data.prepare.check_overlap import CheckSourcesConfig, check_sources, pairs_of
from data.prepare.conversations import PrepareConversationsConfig, prepare_conversations
from data.prepare.documents import PrepareConfig, prepare
from data.prepare.held_out import is_held_out
from data.rows.shards import Source
from data.sample.corpus import SOURCES, documents
from data.sample.instructions import INSTRUCTIONS
from data.sample.instructions import conversations as conversations_of
from storage.atomic import new_file, new_folder, write_atomically
from storage.errors import system_error
from storage.lock import locked
from tokenizer.tokenizer import Tokenizer
from tokenizer.train import train_bpe

VOCAB_SIZE = 2048
HELD_OUT_FRACTION = 0.02
MAX_TOKENS = 256
"""Of a conversation; Chinese text has many tokens, because the tokenizer is English."""
_ENGLISH = ("general_en", "arithmetic")


def build_sample(root: Path, *, scale: float, conversations: bool = False) -> None:
    """Build what is not there yet; an interrupted build continues.

    Args:
        conversations: build the instruction data too.

    Raises:
        ValueError: the folder holds a sample of another size.
    """
    if not scale > 0:
        raise ValueError(f"data.sample_scale={scale}: must be positive")
    label = root / "sample.json"
    wanted = {"scale": scale, "vocab_size": VOCAB_SIZE, "held_out": HELD_OUT_FRACTION}
    wanted_sources = [*SOURCES, *(INSTRUCTIONS if conversations else ())]
    if _is_complete(root, label, wanted, wanted_sources):
        return  # without a lock, which a read-only folder could not hold
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / ".lock").touch()
    except OSError as error:
        raise ValueError(
            f"data.root={root}: the embedded sample cannot be written there "
            f"({system_error(error)}); name another folder with data.root="
        ) from None
    with locked(root / ".lock", busy=None):
        _check_label(label, wanted)
        write_atomically(label, json.dumps(wanted))
        if missing := _missing(root, wanted_sources):
            print(f"building the embedded sample under {root} (once)", flush=True)
            _build(root, scale, missing)
        # Only samples of earlier versions, prepared without decontamination, have pairs to compare.
        folders = [str(root / name) for name in SOURCES]
        compare = CheckSourcesConfig(sources=folders, tokenizer=str(root / "tokenizer"), workers=1)
        check_sources(compare, progress=False)


def _check_label(label: Path, wanted: dict) -> None:
    if label.exists() and label.read_text(encoding="utf-8") != json.dumps(wanted):
        raise ValueError(f"{label} describes another sample than {wanted}; remove {label.parent}")


def _missing(root: Path, names: list[str]) -> list[str]:
    return [name for name in names if not (root / name / "manifest.json").exists()]


def _is_complete(root: Path, label: Path, wanted: dict, names: list[str]) -> bool:
    """Check that the sample is complete and compared; ValueError for a sample of another size."""
    _check_label(label, wanted)
    if not label.exists() or _missing(root, names):
        return False
    pairs = pairs_of([Source(root / name) for name in SOURCES])
    return all(pair.copies is not None for pair in pairs)


def _build(root: Path, scale: float, missing: list[str]) -> None:
    for name in SOURCES:
        texts = ({"text": text} for text in documents(name, scale=scale))
        _write_records(root / "corpus" / f"{name}.jsonl", texts)
        _write_records(_held_out(root, name), _held_out_records(root, name))
    if not (root / "tokenizer").exists():
        _train_tokenizer(root)
    for name in missing:
        if name in INSTRUCTIONS:
            _prepare_instructions(root, name)
            continue
        prepare(
            PrepareConfig(
                name=name,
                inputs=[str(root / "corpus" / f"{name}.jsonl")],
                out=str(root / name),
                tokenizer=str(root / "tokenizer"),
                held_out_fraction=HELD_OUT_FRACTION,
                decontaminate_against=[
                    str(_held_out(root, other)) for other in SOURCES if other != name
                ],
                workers=1,
            ),
            progress=False,
        )


def _held_out(root: Path, name: str) -> Path:
    return root / "corpus" / "held_out" / f"{name}.jsonl"


def _held_out_records(root: Path, name: str) -> Iterator[dict]:
    """Records that a source will hold out; the other sources are decontaminated against them."""
    with (root / "corpus" / f"{name}.jsonl").open(encoding="utf-8") as file:
        for line in file:
            if is_held_out((record := json.loads(line))["text"], HELD_OUT_FRACTION):
                yield record


def _prepare_instructions(root: Path, name: str) -> None:
    path = root / "corpus" / f"{name}.jsonl"
    _write_records(path, ({"messages": messages} for messages in conversations_of(name)))
    prepare_conversations(
        PrepareConversationsConfig(
            name=name,
            inputs=[str(path)],
            out=str(root / name),
            tokenizer=str(root / "tokenizer"),
            max_tokens=MAX_TOKENS,
            held_out_fraction=HELD_OUT_FRACTION,
        ),
        progress=False,
    )


def _write_records(path: Path, records: Iterator[dict]) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


def _train_tokenizer(root: Path) -> None:
    model = train_bpe(_lines(root), vocab_size=VOCAB_SIZE)
    with new_folder(root / "tokenizer") as partial:
        (partial / "tokenizer.model").write_bytes(model)
        Tokenizer.open(partial).save(partial)


def _lines(root: Path) -> Iterator[str]:
    for name in _ENGLISH:
        with (root / "corpus" / f"{name}.jsonl").open(encoding="utf-8") as file:
            for line in file:
                yield from json.loads(line)["text"].splitlines()
