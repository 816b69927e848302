"""Text <-> ids, from a sentencepiece `.model` (the source of truth) or a folder's tokenizer.json.

`Tokenizer.open` is the entrance. `encode` adds neither BOS nor EOS, and text stays text: a literal
`</s>` or `[INST]` in it never becomes a control id unless the caller says `control_symbols=True`.
A tokenizer without BOS or EOS is refused, and so is text that has no UTF-8 form.
"""

import hashlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import (
    ModelProto,  # pyright: ignore[reportAttributeAccessIssue] protobuf makes it at run time
)

from tokenizer.fast import CONTROL, fast_files
from tokenizer.text import check_text

HF_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)


class Tokenizer(ABC):
    """What every kind of tokenizer offers.

    Attributes:
        vocab_size: ids are 0 .. vocab_size - 1.
        bos_id, eos_id: always there.
        unk_id, pad_id: None where the tokenizer has none.
        fingerprint: sha256 over what decides the ids (pieces, scores, types, normaliser), not over
            the file's bytes, which also carry paths and thread counts.
    """

    vocab_size: int
    bos_id: int
    eos_id: int
    unk_id: int | None
    pad_id: int | None
    fingerprint: str

    @staticmethod
    def open(path: Path | str) -> "Tokenizer":
        """Open a `.model` file, or a folder with tokenizer.model or only tokenizer.json."""
        path = Path(path)
        if path.is_file():
            return _SentencePiece(path)
        if (path / "tokenizer.model").is_file():
            return _SentencePiece(path / "tokenizer.model")
        if (path / "tokenizer.json").is_file():
            return _TokenizerJson(path)
        raise ValueError(
            f"{path} is no tokenizer: give a sentencepiece .model file, or a folder that has "
            "tokenizer.model or tokenizer.json"
        )

    def _set_control(self, source: Path, control: dict[str, int]) -> None:
        """Take over the control symbols; ValueError if plain text could become one."""
        for literal in control:
            if not set(self._encode(literal)).isdisjoint(control.values()):
                raise ValueError(
                    f"{source}: plain text {literal!r} would become a control id; use a tokenizer "
                    "that keeps them apart"
                )
        self._control = control
        longest_first = "|".join(map(re.escape, sorted(control, key=len, reverse=True)))
        self._control_literal = re.compile(f"({longest_first or '(?!)'})")

    def _set_ids(
        self, source: Path, bos: int | None, eos: int | None, unk: int | None, pad: int | None
    ) -> None:
        """Take over the special ids; ValueError if this tokenizer cannot frame a document."""
        if bos is None or eos is None:
            raise ValueError(
                f"{source}: the tokenizer has no {'BOS' if bos is None else 'EOS'} id; name it in "
                "tokenizer_config.json, or train the sentencepiece model with one"
            )
        self.bos_id, self.eos_id, self.unk_id, self.pad_id = bos, eos, unk, pad

    def encode(self, text: str, *, control_symbols: bool = False) -> list[int]:
        """The ids of a text, without BOS and EOS.

        With `control_symbols`, literal control symbols become their ids, the longest where several
        begin, and each text between them is encoded as if it stood alone (its own dummy prefix).
        ValueError if `text` is not a string or holds a lone surrogate.
        """
        check_text(text)
        if not control_symbols:
            return self._encode(text)
        ids = []
        for segment in self._control_literal.split(text):
            if segment in self._control:
                ids.append(self._control[segment])
            elif segment:
                ids += self._encode(segment)
        return ids

    def encode_batch(self, texts: list[str], *, threads: int | None = None) -> list[list[int]]:
        """`encode` of many texts, on `threads` threads or all cores.

        A tokenizer.json takes any number above 1 for all cores (or RAYON_NUM_THREADS).
        """
        if threads is not None and threads < 1:
            raise ValueError(f"threads={threads}: give a positive number, or None for all cores")
        for text in texts:
            check_text(text)
        return self._encode_batch(texts, threads)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; control ids give nothing. ValueError for an id out of range."""
        ids = [int(id) for id in ids]
        wrong = next((id for id in ids if not 0 <= id < self.vocab_size), None)
        if wrong is not None:
            raise ValueError(f"id {wrong} is outside the vocabulary of {self.vocab_size}")
        return self._decode(ids)

    def piece(self, id: int) -> str:
        """What an id stands for, as the vocabulary spells it. ValueError for an id out of range."""
        if not 0 <= id < self.vocab_size:
            raise ValueError(f"id {id} is outside the vocabulary of {self.vocab_size}")
        return self._piece(id)

    def check_exportable(self) -> None:
        """ValueError if `save` could not write files that agree with this tokenizer."""
        self._files()

    def save(self, folder: Path) -> None:
        """Write the tokenizer files of an HF folder, each of them whole or not at all."""
        files = self._files()
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _write(folder / name, content)

    @abstractmethod
    def _encode(self, text: str) -> list[int]: ...

    @abstractmethod
    def _encode_batch(self, texts: list[str], threads: int | None) -> list[list[int]]: ...

    @abstractmethod
    def _decode(self, ids: list[int]) -> str: ...

    @abstractmethod
    def _piece(self, id: int) -> str: ...

    @abstractmethod
    def _files(self) -> dict[str, bytes]: ...


class _SentencePiece(Tokenizer):
    """A sentencepiece model file."""

    def __init__(self, path: Path) -> None:
        self._serialized = path.read_bytes()
        self._model = ModelProto()
        self._processor = SentencePieceProcessor()
        try:
            self._model.ParseFromString(self._serialized)
            self._processor.LoadFromSerializedProto(self._serialized)
        except (DecodeError, RuntimeError) as error:
            raise ValueError(f"{path} is not a sentencepiece model: {error}") from None
        self.vocab_size = len(self._model.pieces)
        self.fingerprint = _fingerprint(self._model)
        pieces = enumerate(self._model.pieces)
        bos, eos, unk, pad = (
            id if id >= 0 else None
            for id in (
                self._processor.bos_id(),
                self._processor.eos_id(),
                self._processor.unk_id(),
                self._processor.pad_id(),
            )
        )
        self._set_ids(path, bos, eos, unk, pad)
        self._set_control(path, {p.piece: id for id, p in pieces if p.type == CONTROL})

    def _encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def _encode_batch(self, texts: list[str], threads: int | None) -> list[list[int]]:
        return self._processor.encode(texts, num_threads=threads or -1)

    def _decode(self, ids: list[int]) -> str:
        return self._processor.decode(ids)

    def _piece(self, id: int) -> str:
        return self._model.pieces[id].piece

    def _files(self) -> dict[str, bytes]:
        files = {"tokenizer.model": self._serialized}
        for name, value in fast_files(self._model).items():
            files[name] = json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n"
        return files


class _TokenizerJson(Tokenizer):
    """A folder that has only a tokenizer.json: read through `tokenizers`, saved as a copy.

    BOS and EOS come from the folder's tokenizer_config.json, generation_config.json or config.json.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import tokenizers
        except ImportError:
            raise ValueError(
                f"{folder} has only a tokenizer.json: install the extra `hf` to read it"
            ) from None
        self._folder = folder
        self._backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._backend.encode_special_tokens = True  # a literal special token is plain text
        self._backend.no_truncation()
        self._backend.no_padding()
        self.vocab_size = 1 + max(self._backend.get_vocab().values())
        self._set_ids(folder, *(self._special_id(name) for name in ("bos", "eos", "unk", "pad")))
        added = self._backend.get_added_tokens_decoder().items()
        special = {token.content: id for id, token in added if token.special}
        self._set_control(folder, {c: id for c, id in special.items() if id != self.unk_id})
        description = _read_json(folder / "tokenizer.json")
        decisive = {k: v for k, v in description.items() if k not in ("truncation", "padding")}
        self.fingerprint = _sha256([self.bos_id, self.eos_id, decisive])

    def _special_id(self, name: str) -> int | None:
        token = _read_json(self._folder / "tokenizer_config.json").get(f"{name}_token")
        if token is not None:
            return self._backend.token_to_id(token if isinstance(token, str) else token["content"])
        for file in ("generation_config.json", "config.json"):
            id = _read_json(self._folder / file).get(f"{name}_token_id")
            if id is not None:
                return id[0] if isinstance(id, list) else id
        return None

    def _encode(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids

    def _encode_batch(self, texts: list[str], threads: int | None) -> list[list[int]]:
        if threads == 1:
            return [self._encode(text) for text in texts]
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _decode(self, ids: list[int]) -> str:
        return self._backend.decode(ids, skip_special_tokens=True)

    def _piece(self, id: int) -> str:
        return self._backend.id_to_token(id) or ""

    def _files(self) -> dict[str, bytes]:
        paths = [self._folder / name for name in HF_FILES]
        return {path.name: path.read_bytes() for path in paths if path.is_file()}


def _fingerprint(model: ModelProto) -> str:
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    return _sha256(
        {
            "pieces": [[p.piece, p.score, p.type] for p in model.pieces],
            "model_type": trainer.model_type,
            "byte_fallback": trainer.byte_fallback,
            "bos_eos": [trainer.bos_piece, trainer.eos_piece],
            "whitespace_as_suffix": trainer.treat_whitespace_as_suffix,
            "charsmap": normalizer.precompiled_charsmap.hex(),
            "dummy_prefix": normalizer.add_dummy_prefix,
            "remove_extra_whitespaces": normalizer.remove_extra_whitespaces,
            "escape_whitespaces": normalizer.escape_whitespaces,
        }
    )


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _read_json(path: Path) -> dict:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: {error}") from None


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
