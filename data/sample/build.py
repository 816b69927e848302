"""The embedded sample on disk: texts, tokenizer and prepared sources, written at first use.

<root>/sample.json     what was built; a folder built otherwise is refused
       corpus/         one .jsonl per source
       tokenizer/      trained on the general English side only, so that there is something for
                       vocabulary growth to do
       <source>/       prepared shards
"""

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

from data.prepare import PrepareConfig, prepare
from data.sample.corpus import SOURCES, documents
from tokenizer.tokenizer import Tokenizer
from tokenizer.train import train_bpe

VOCAB_SIZE = 2048
HELD_OUT_FRACTION = 0.02
_ENGLISH = ("general_en", "arithmetic")


def build_sample(root: Path, *, scale: float) -> None:
    """Build what is not there yet; an interrupted build continues.

    Raises:
        ValueError: the folder holds a sample of another size.
    """
    if not scale > 0:
        raise ValueError(f"data.sample_scale={scale}: must be positive")
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        label = root / "sample.json"
        wanted = {"scale": scale, "vocab_size": VOCAB_SIZE, "held_out": HELD_OUT_FRACTION}
        if label.exists() and label.read_text(encoding="utf-8") != json.dumps(wanted):
            raise ValueError(f"{label} describes another sample than {wanted}; remove {root}")
        partial = root / "sample.json.tmp"
        partial.write_text(json.dumps(wanted), encoding="utf-8")
        partial.replace(label)
        missing = [name for name in SOURCES if not (root / name / "manifest.json").exists()]
        if not missing:
            return
        print(f"building the embedded sample under {root} (once)", flush=True)
        for name in SOURCES:
            _write_texts(root / "corpus" / f"{name}.jsonl", documents(name, scale=scale))
        if not (root / "tokenizer").exists():
            _train_tokenizer(root)
        for name in missing:
            prepare(
                PrepareConfig(
                    name=name,
                    inputs=[str(root / "corpus" / f"{name}.jsonl")],
                    out=str(root / name),
                    tokenizer=str(root / "tokenizer"),
                    held_out_fraction=HELD_OUT_FRACTION,
                    workers=1,
                ),
                progress=False,
            )


def _write_texts(path: Path, texts: Iterator[str]) -> None:
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    partial = path.with_name(path.name + ".tmp")
    with partial.open("w", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    partial.replace(path)


def _train_tokenizer(root: Path) -> None:
    model = train_bpe(_lines(root), vocab_size=VOCAB_SIZE)
    partial = root / "tokenizer.tmp"
    partial.mkdir(exist_ok=True)
    (partial / "tokenizer.model").write_bytes(model)
    Tokenizer.open(partial).save(partial)
    partial.rename(root / "tokenizer")


def _lines(root: Path) -> Iterator[str]:
    for name in _ENGLISH:
        with (root / "corpus" / f"{name}.jsonl").open(encoding="utf-8") as file:
            for line in file:
                yield from json.loads(line)["text"].splitlines()
