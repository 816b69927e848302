"""Text <-> ids, from a sentencepiece `.model` or a folder's tokenizer.json.

`Tokenizer.open` is the entrance. `encode` adds neither BOS nor EOS, and text stays text: a literal
`</s>` or `[INST]` in it never becomes a control id unless the caller says `control_symbols=True`.
A tokenizer without BOS or EOS is refused, and so is text that has no UTF-8 form.

A sentencepiece model is the source of truth where nothing in the folder goes beyond it. The ids
come from tokenizer.json where the folder has no model, has tokens behind the model's pieces, or has
a tokenizer.json that cuts text in another way than the model (ties in score, a prefix before the
first text only). `tokenizer.model` is then kept and copied, and `second_opinion` compares.
"""

import copy
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from sentencepiece import SentencePieceProcessor
from sentencepiece.sentencepiece_model_pb2 import (
    ModelProto,  # pyright: ignore[reportAttributeAccessIssue] protobuf makes it at run time
)

from storage.atomic import write_atomically
from tokenizer.folder import (
    ADDED,
    CONFIG,
    JSON,
    MAP,
    MODEL,
    PLAIN_CLASSES,
    FolderFiles,
    as_json,
    check_named,
    check_rows,
    check_same_ids,
    description_of,
    goes_beyond,
    read_json,
    rows_of_model,
)
from tokenizer.hf_export import CONTROL, USER_DEFINED, fast_files
from tokenizer.text import Span, check_text, matches_outside


class Tokenizer(ABC):
    """Interface of all tokenizers.

    Attributes:
        vocab_size: ids are 0 .. vocab_size - 1.
        bos_id, eos_id: always there.
        unk_id, pad_id: None where the tokenizer has none.
        fingerprint: sha256 over what decides the ids (pieces, scores, types, normaliser, added
            tokens), not over the file's bytes, which also carry paths and thread counts.
        origin: the file or folder that was opened.
        special_tokens: `bos_token`, `eos_token` and so on, as chat templates write them.
        templates: the chat templates of the folder by name, a single one as "default"; may be
            empty.
    """

    vocab_size: int
    bos_id: int
    eos_id: int
    unk_id: int | None
    pad_id: int | None
    fingerprint: str
    origin: Path
    special_tokens: dict[str, str]
    _folder: FolderFiles
    _plain_symbols: dict[str, int]

    @staticmethod
    def open(path: Path | str) -> "Tokenizer":
        """Open a `.model` file, or a folder with tokenizer.model, tokenizer.json or both.

        Raises:
            ValueError: the path has no tokenizer, a file is damaged, or two files disagree.
            MoreIdsThanRows: the model in the folder has fewer rows than the tokenizer has ids.
        """
        path = Path(path)
        if path.is_file():
            return _SentencePiece(path, path.read_bytes(), FolderFiles.none(path))
        tokenizer = Tokenizer._open_folder(path)
        check_rows(path, tokenizer.vocab_size, rows_of_model(path))
        return tokenizer

    @staticmethod
    def _open_folder(path: Path) -> "Tokenizer":
        files = FolderFiles.read(path)
        if MODEL in files.raw:
            model = _parse(path / MODEL, files.raw[MODEL])
            check_same_ids(files, model)
            if not goes_beyond(files, model):
                return _SentencePiece(path, files.raw[MODEL], files)
            return _TokenizerJson(files, model)
        if files.description:
            return _TokenizerJson(files, None)
        hint = "; tekken.json is not read: add the tokenizer.json of the model"
        raise ValueError(
            f"{path} is not a tokenizer: give a sentencepiece .model file, or a folder with "
            f"{MODEL} or {JSON}{hint if 'tekken.json' in files.raw else ''}"
        )

    @property
    def templates(self) -> Mapping[str, str]:
        """The chat templates by name."""
        return self._folder.templates

    def with_templates(self, templates: Mapping[str, str]) -> "Tokenizer":
        """The same tokenizer with other chat templates."""
        other = copy.copy(self)
        other._folder = self._folder.replaced(templates)
        return other

    def control_symbols(self) -> Mapping[str, int]:
        """The literals that stand for control ids in a rendered chat template."""
        return self._control

    def symbols(self) -> Mapping[str, int]:
        """All literals that are cut out of a rendered chat template, white space left out."""
        found = {**self._plain_symbols, **self._control}
        return {symbol: id for symbol, id in found.items() if not symbol.isspace()}

    def encode_rendered(self, text: str, contents: Sequence[Span]) -> list[int]:
        """The ids of a text that a chat template wrote, BOS and EOS as the template has them.

        Args:
            contents: the spans that come from messages; a control symbol there stays text.
        """
        check_text(text)
        return self._encode_rendered(text, contents)

    def second_opinion(self, texts: list[str]) -> int | None:  # noqa: ARG002
        """On how many texts the folder's tokenizer.model gives other ids; None where none counts.

        It counts where the ids come from tokenizer.json and the folder has a tokenizer.model too.
        """
        return None

    def _set_control(self, source: Path, control: dict[str, int]) -> None:
        """Take over the control symbols; ValueError if plain text could become one."""
        for literal in control:
            if not set(self._encode(literal)).isdisjoint(control.values()):
                raise ValueError(
                    f"{source}: plain text {literal!r} would become a control id; use a tokenizer "
                    "that encodes this text otherwise"
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
                "tokenizer_config.json, or train the sentencepiece model with one. Documents are "
                "framed by BOS and EOS here; a tokenizer that has EOS alone (Qwen, OLMo) is not "
                "supported"
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
        """Piece of an id, as spelled in the vocabulary. ValueError for an id out of range."""
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
        for name, content in (files | self._folder.template_files()).items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_atomically(folder / name, content)

    @abstractmethod
    def _encode(self, text: str) -> list[int]: ...

    @abstractmethod
    def _encode_rendered(self, text: str, contents: Sequence[Span]) -> list[int]: ...

    @abstractmethod
    def _encode_batch(self, texts: list[str], threads: int | None) -> list[list[int]]: ...

    @abstractmethod
    def _decode(self, ids: list[int]) -> str: ...

    @abstractmethod
    def _piece(self, id: int) -> str: ...

    @abstractmethod
    def _files(self) -> dict[str, bytes]: ...


class _SentencePiece(Tokenizer):
    """A sentencepiece model, alone or in a folder whose other files do not go beyond it."""

    def __init__(self, origin: Path, serialized: bytes, files: FolderFiles) -> None:
        path = origin if origin.is_file() else origin / MODEL
        self.origin, self._serialized, self._folder = origin, serialized, files
        self._model = _parse(path, serialized)
        self._processor = _processor(path, serialized)
        self.vocab_size = len(self._model.pieces)
        given = _own_ids(self._processor)
        places = {piece.piece: id for id, piece in enumerate(self._model.pieces)}
        self.special_tokens = {
            f"{name}_token": self._model.pieces[id].piece for name, id in given.items()
        } | files.special_tokens()
        check_named(files, places)
        named = {key: places[token] for key, token in self.special_tokens.items()}
        ids = [named.get(f"{name}_token") for name in ("bos", "eos", "unk", "pad")]
        self._set_ids(path, *ids)
        self.fingerprint = _fingerprint(self._model)
        if (given.get("bos"), given.get("eos")) != (self.bos_id, self.eos_id):
            self.fingerprint = _sha256([self.fingerprint, self.bos_id, self.eos_id])
        pieces = enumerate(self._model.pieces)
        self._set_control(path, {p.piece: id for id, p in pieces if p.type == CONTROL})
        self._plain_symbols = {
            piece.piece: id
            for id, piece in enumerate(self._model.pieces)
            if piece.type == USER_DEFINED and len(piece.piece) > 1
        }

    def _encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def _encode_batch(self, texts: list[str], threads: int | None) -> list[list[int]]:
        return self._processor.encode(texts, num_threads=threads or -1)

    def _encode_rendered(self, text: str, contents: Sequence[Span]) -> list[int]:
        ids, start = [], 0
        for begin, stop in matches_outside(self._control_literal, text, contents):
            ids += self._encode(text[start:begin]) if begin > start else []
            ids.append(self._control[text[begin:stop]])
            start = stop
        return ids + (self._encode(text[start:]) if start < len(text) else [])

    def _decode(self, ids: list[int]) -> str:
        return self._processor.decode(ids)

    def _piece(self, id: int) -> str:
        return self._model.pieces[id].piece

    def _files(self) -> dict[str, bytes]:
        written = fast_files(self._model)
        kept = {k: v for k, v in self._folder.config.items() if k != "auto_map"}
        config = written[CONFIG] | kept | {"tokenizer_class": PLAIN_CLASSES[0]}
        return {
            MODEL: self._serialized,
            JSON: as_json(written[JSON]),
            CONFIG: as_json(config | {k: kept.get(k, v) for k, v in self.special_tokens.items()}),
            MAP: self._folder.raw.get(MAP, as_json(self.special_tokens)),
            **{name: self._folder.raw[name] for name in (ADDED,) if name in self._folder.raw},
        }


class _TokenizerJson(Tokenizer):
    """A tokenizer.json, read through `tokenizers`; the files of its folder are saved as copies.

    BOS and EOS come from the folder's tokenizer_config.json and special_tokens_map.json, or where
    they name none, from generation_config.json or config.json.

    Args:
        model: of the folder's tokenizer.model, if there is one.
    """

    def __init__(self, files: FolderFiles, model: ModelProto | None) -> None:
        self.origin, self._folder, self._model = files.folder, files, model
        self._description = description_of(files, model)
        self._backend = self._build(self._description)
        self._backend.encode_special_tokens = True  # a literal special token is plain text
        self.vocab_size = 1 + max(self._backend.get_vocab().values())
        added = files.added()
        self._contents = {id: token.content for id, token in added.items()}
        for id, token in added.items():
            if self._backend.token_to_id(token.content) != id:
                raise ValueError(
                    f"{files.folder}: the added token {token.content!r} has the id {id} in the "
                    f"files, but tokenizer.json gives it {self._backend.token_to_id(token.content)}"
                    "; write it into model.vocab with its id"
                )
        check_named(files, self._backend.get_vocab())
        self.special_tokens = files.special_tokens()
        ids = {name: self._special_id(name) for name in ("bos", "eos", "unk", "pad")}
        self._set_ids(files.folder, ids["bos"], ids["eos"], ids["unk"], ids["pad"])
        for name, id in ids.items():
            if id is not None:
                self.special_tokens.setdefault(f"{name}_token", self._piece(id))
        special = {token.content: id for id, token in added.items() if token.special}
        self._plain_symbols = {t.content: id for id, t in added.items() if not t.special}
        self._set_control(files.folder, {c: id for c, id in special.items() if id != self.unk_id})
        decisive = {
            k: v for k, v in self._description.items() if k not in ("truncation", "padding")
        }
        self.fingerprint = _sha256([self.bos_id, self.eos_id, decisive])

    def _build(self, description: Mapping[str, Any]) -> Any:
        try:
            import tokenizers
        except ImportError:
            raise ValueError(
                f"{self.origin}: the ids come from tokenizer.json: install the extra `hf` to read "
                "it"
            ) from None
        try:
            backend = tokenizers.Tokenizer.from_str(json.dumps(description))
        except BaseException as error:
            if type(error) is not Exception:  # the class that `tokenizers` raises
                raise
            raise ValueError(f"{self.origin / JSON}: {error}; the file is damaged") from None
        backend.no_truncation()
        backend.no_padding()
        return backend

    @cached_property
    def _rendering(self) -> Any:
        """The backend for what templates write: special tokens are ids."""
        return self._build(self._description)

    @cached_property
    def _guarded(self) -> tuple[Any, dict[str, str]]:
        """The backend with other names for control symbols, and these names.

        The names are private characters, so that no symbol is found in a text.
        """
        names = {symbol: chr(0x100000 + number) for number, symbol in enumerate(self._control)}
        model = dict(self._description["model"])
        if isinstance(model["vocab"], dict):
            model["vocab"] = {names.get(piece, piece): id for piece, id in model["vocab"].items()}
        else:
            model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
        added = [
            {**token, "content": names.get(token["content"], token["content"])}
            for token in self._description["added_tokens"]
        ]
        renamed = {"model": model, "added_tokens": added, "post_processor": None}
        return self._build({**self._description, **renamed}), names

    def _special_id(self, name: str) -> int | None:
        token = self.special_tokens.get(f"{name}_token")
        if token is not None:
            return self._backend.token_to_id(token)
        if name == "bos" and self._folder.config.get("add_bos_token") is False:
            return None  # the tokenizer says itself that it has none
        if self._model is not None:
            return _own_ids(_processor(self.origin / MODEL, self._folder.raw[MODEL])).get(name)
        for file in ("generation_config.json", "config.json"):
            id = read_json(self.origin / file).get(f"{name}_token_id")
            id = id[0] if isinstance(id, list) and id else id
            if isinstance(id, int) and self._backend.id_to_token(id) is not None:
                return id
        return None

    def second_opinion(self, texts: list[str]) -> int | None:
        if self._model is None:
            return None
        processor = _processor(self.origin / MODEL, self._folder.raw[MODEL])
        ours, theirs = self.encode_batch(texts), processor.encode(texts)
        return sum(one != other for one, other in zip(ours, theirs, strict=True))

    def _encode(self, text: str) -> list[int]:
        return self._backend.encode(text, add_special_tokens=False).ids

    def _encode_batch(self, texts: list[str], threads: int | None) -> list[list[int]]:
        if threads == 1:
            return [self._encode(text) for text in texts]
        encodings = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _encode_rendered(self, text: str, contents: Sequence[Span]) -> list[int]:
        symbols = list(matches_outside(self._control_literal, text, contents))
        if [match.span() for match in self._control_literal.finditer(text)] == symbols:
            return self._rendering.encode(text, add_special_tokens=False).ids
        backend, names = self._guarded
        if used := [name for name in names.values() if name in text]:
            raise ValueError(
                f"a message holds the private character U+{ord(used[0]):X} and a control symbol; "
                "remove one of them"
            )
        pieces, start = [], 0
        for begin, stop in symbols:
            pieces += [text[start:begin], names[text[begin:stop]]]
            start = stop
        return backend.encode("".join([*pieces, text[start:]]), add_special_tokens=False).ids

    def _decode(self, ids: list[int]) -> str:
        return self._backend.decode(ids, skip_special_tokens=True)

    def _piece(self, id: int) -> str:
        # `tokenizers` spells an added token as its normaliser leaves it.
        return self._contents.get(id) or self._backend.id_to_token(id) or ""

    def _files(self) -> dict[str, bytes]:
        files = dict(self._folder.raw)
        config = dict(self._folder.config)
        if JSON not in files:
            files[JSON] = as_json(self._description)
        plain = config.get("tokenizer_class", PLAIN_CLASSES[0]) in PLAIN_CLASSES
        if not plain or self.special_tokens != self._folder.special_tokens():
            # Another class would rebuild parts of tokenizer.json in its own way.
            config |= {"tokenizer_class": PLAIN_CLASSES[0]}
            named = {k: v for k, v in self.special_tokens.items() if not config.get(k)}
            files[CONFIG] = as_json(config | named)
        return files


def _parse(path: Path, serialized: bytes) -> ModelProto:
    model = ModelProto()
    try:
        model.ParseFromString(serialized)
    except DecodeError as error:
        raise ValueError(f"{path} is not a sentencepiece model: {error}") from None
    return model


def _processor(path: Path, serialized: bytes) -> SentencePieceProcessor:
    processor = SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(serialized)
    except RuntimeError as error:
        raise ValueError(f"{path} is not a sentencepiece model: {error}") from None
    return processor


def _own_ids(processor: SentencePieceProcessor) -> dict[str, int]:
    """The special ids of a sentencepiece model by name."""
    names = ("bos", "eos", "unk", "pad")
    ids = {name: getattr(processor, f"{name}_id")() for name in names}
    return {name: id for name, id in ids.items() if id >= 0}


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
