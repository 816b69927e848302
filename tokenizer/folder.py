"""HF files of a tokenizer other than its pieces: special tokens, added tokens, chat templates.

`FolderFiles.read` takes all of a folder at once and compares them: names and ids on which two files
disagree are refused. Which file counts follows `transformers` 5.24: special_tokens_map.json before
tokenizer_config.json, unless the latter has `added_tokens_decoder`; the flags of an added token in
`added_tokens_decoder` before those in tokenizer.json; template files before `chat_template`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sentencepiece.sentencepiece_model_pb2 import (
    ModelProto,  # pyright: ignore[reportAttributeAccessIssue] protobuf makes it at run time
)

from tokenizer.hf_export import CONTROL, UNKNOWN, check_expressible, fast_files, text_steps

MODEL, JSON, CONFIG = "tokenizer.model", "tokenizer.json", "tokenizer_config.json"
MAP, ADDED = "special_tokens_map.json", "added_tokens.json"
TEMPLATE, MORE_TEMPLATES = "chat_template.jinja", "additional_chat_templates"
COPIED = (MODEL, JSON, CONFIG, MAP, ADDED, "vocab.json", "merges.txt", "tekken.json")
"""Files that a copy of a tokenizer has where its folder has them, templates aside."""
SPECIAL_NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of `transformers` that take tokenizer.json as it is; others rebuild parts of it."""


@dataclass(frozen=True)
class AddedToken:
    """A token that is cut out of a text before anything else is done.

    Attributes:
        special: plain text never becomes this token.
        flags: `lstrip`, `rstrip`, `single_word`, `normalized`.
    """

    content: str
    special: bool
    flags: Mapping[str, bool]

    def as_json(self, id: int) -> dict[str, Any]:
        """An entry of `added_tokens` in tokenizer.json."""
        return {"id": id, "content": self.content, **self.flags, "special": self.special}


@dataclass(frozen=True)
class FolderFiles:
    """The tokenizer files of a folder; empty for a sentencepiece model that is alone.

    Attributes:
        raw: content of the files by name.
        config, special_map: tokenizer_config.json and special_tokens_map.json, empty without one.
        description: tokenizer.json, empty without one.
        templates: the chat templates by name; a single one is named "default".
    """

    folder: Path
    raw: Mapping[str, bytes]
    config: Mapping[str, Any]
    special_map: Mapping[str, Any]
    description: Mapping[str, Any]
    templates: Mapping[str, str]

    @staticmethod
    def none(path: Path) -> "FolderFiles":
        """The files of a sentencepiece model that is alone."""
        return FolderFiles(path, {}, {}, {}, {}, {})

    @staticmethod
    def read(folder: Path) -> "FolderFiles":
        """All files; ValueError if one is damaged."""
        raw = {n: (folder / n).read_bytes() for n in COPIED if (folder / n).is_file()}
        parsed = {name: _object(folder / name, raw) for name in (CONFIG, MAP, JSON)}
        templates = _templates(folder, parsed[CONFIG])
        files = FolderFiles(folder, raw, parsed[CONFIG], parsed[MAP], parsed[JSON], templates)
        files.added()
        return files

    def special_tokens(self) -> dict[str, str]:
        """`bos_token` and so on, as `transformers` takes them from the files."""
        chosen = dict(self.config)
        if "added_tokens_decoder" not in self.config:
            chosen |= self.special_map
        named = {f"{name}_token": chosen.get(f"{name}_token") for name in SPECIAL_NAMES}
        tokens = {key: t["content"] if isinstance(t, dict) else t for key, t in named.items() if t}
        for key, token in tokens.items():
            if not isinstance(token, str):
                raise ValueError(f"{self.folder}: {key}={token!r} is not text; correct {CONFIG}")
        return tokens

    def all_special(self) -> dict[str, str]:
        """Every token that the files call special, by where it is named."""
        tokens = self.special_tokens()
        for file, content in ((CONFIG, self.config), (MAP, self.special_map)):
            for key in ("additional_special_tokens", "extra_special_tokens"):
                more = content.get(key) or []
                for token in more.values() if isinstance(more, dict) else more:
                    name = token["content"] if isinstance(token, dict) else token
                    tokens[f"{file}, {key}, {name!r}"] = name
        return tokens

    def added(self) -> dict[int, AddedToken]:
        """The added tokens of all files by id.

        Raises:
            ValueError: two names for one id, or two ids for one name.
        """
        found: dict[int, AddedToken] = {}
        ids: dict[str, int] = {}
        for file, id, token in self._listed():
            if id in found and found[id].content != token.content:
                raise ValueError(
                    f"{self.folder}: {file} names the id {id} {token.content!r}, another file "
                    f"{found[id].content!r}; correct one of them"
                )
            if ids.setdefault(token.content, id) != id:
                raise ValueError(
                    f"{self.folder}: {file} gives {token.content!r} the id {id}, another file "
                    f"{ids[token.content]}; correct one of them"
                )
            if file != ADDED or id not in found:
                found[id] = token
        return dict(sorted(found.items()))

    def _listed(self) -> Iterator[tuple[str, int, AddedToken]]:
        """(file, id, token), the file whose flags count last."""
        for entry in self.description.get("added_tokens", []):
            yield JSON, *self._entry(JSON, entry.get("id"), entry)
        for id, entry in self.config.get("added_tokens_decoder", {}).items():
            yield CONFIG, *self._entry(CONFIG, id, entry)
        special = set(self.all_special().values())
        for content, id in _object(self.folder / ADDED, self.raw).items():
            yield (
                ADDED,
                *self._entry(ADDED, id, {"content": content, "special": content in special}),
            )

    def _entry(self, file: str, id: Any, entry: Any) -> tuple[int, AddedToken]:
        try:
            flags = {k: bool(entry.get(k)) for k in ("single_word", "lstrip", "rstrip")}
            special = bool(entry.get("special"))
            # The default of `tokenizers`, and for added_tokens.json, which has no flags, off.
            normalized = entry.get("normalized", file != ADDED and not special)
            content = entry["content"]
            if not isinstance(content, str) or not content:
                raise ValueError
            number = int(id)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ValueError(
                f"{self.folder}: {file} has an added token that cannot be read: {entry!r:.120} "
                f"(id {id!r}); correct it"
            ) from None
        return number, AddedToken(content, special, {**flags, "normalized": bool(normalized)})

    def replaced(self, templates: Mapping[str, str]) -> "FolderFiles":
        """The same files with other chat templates."""
        config = {k: v for k, v in self.config.items() if k != "chat_template"}
        raw = dict(self.raw)
        if "chat_template" in self.config:
            raw[CONFIG] = as_json(config)
        return replace(self, raw=raw, config=config, templates=dict(templates))

    def template_files(self) -> dict[str, bytes]:
        """The files of the templates, unless tokenizer_config.json holds them as they are."""
        if self.templates == _named(self.config.get("chat_template"), self.folder):
            return {}
        files = {}
        for name, source in self.templates.items():
            file = TEMPLATE if name == "default" else f"{MORE_TEMPLATES}/{name}.jinja"
            files[file] = source.encode()
        return files


def as_json(value: Any) -> bytes:
    """A JSON file."""
    return json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, empty without the file; ValueError if the file contains something else."""
    raw = {path.name: path.read_bytes()} if path.is_file() else {}
    return _object(path, raw)


def read_templates(folder: Path) -> dict[str, str]:
    """The chat templates of a folder by name; a folder of weights or an adapter may have none."""
    return _templates(folder, read_json(folder / CONFIG))


class MoreIdsThanRows(ValueError):
    """A tokenizer has ids for which the model of the same folder has no rows."""


def check_rows(folder: Path, ids: int, rows: int | None) -> None:
    """MoreIdsThanRows where a tokenizer has more ids than the model has rows, if rows are known."""
    if rows is not None and ids > rows:
        raise MoreIdsThanRows(
            f"{folder}: the tokenizer has {ids} pieces, the model {rows} rows; "
            "they do not belong together"
        )


def rows_of_model(folder: Path) -> int | None:
    """`vocab_size` of a folder's config.json; None without such a file or an entry of this kind."""
    try:
        rows = json.loads((folder / "config.json").read_bytes())["vocab_size"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None  # the reader of the model reports what is wrong with the file
    return rows if type(rows) is int else None


def _object(path: Path, raw: Mapping[str, bytes]) -> dict[str, Any]:
    if path.name not in raw:
        return {}
    try:
        value = json.loads(raw[path.name].decode())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: {error}; the file is damaged") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: holds {type(value).__name__}, not an object; correct the file")
    return value


def _templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Template files, or where there is none, `chat_template` of tokenizer_config.json."""
    files = {"default": folder / TEMPLATE}
    files |= {path.stem: path for path in sorted((folder / MORE_TEMPLATES).glob("*.jinja"))}
    try:
        found = {n: path.read_text(encoding="utf-8") for n, path in files.items() if path.is_file()}
    except UnicodeDecodeError as error:
        raise ValueError(f"{folder}: a chat template is not UTF-8 ({error})") from None
    return found or _named(config.get("chat_template"), folder)


def _named(value: Any, folder: Path) -> dict[str, str]:
    """`chat_template` of tokenizer_config.json: a text, or a list of {name, template}."""
    if value is None:
        return {}
    if isinstance(value, str):
        return {"default": value}
    entries = value.items() if isinstance(value, dict) else None
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        entries = [(entry.get("name"), entry.get("template")) for entry in value]
    named = dict(entries) if entries is not None else {}
    if not named or not all(isinstance(x, str) for pair in named.items() for x in pair):
        raise ValueError(
            f"{folder}: chat_template in {CONFIG} is neither a text nor a list of objects with "
            "name and template; correct it"
        )
    return named


def check_same_ids(files: FolderFiles, model: ModelProto) -> None:
    """ValueError where tokenizer.json or an added token gives a piece's id to something else."""
    remedy = f"keep the files that belong to the weights, and remove the others from {files.folder}"
    added = files.added()
    for id, token in added.items():
        if id < len(model.pieces) and model.pieces[id].piece != token.content:
            raise ValueError(
                f"{files.folder}: the id {id} is {model.pieces[id].piece!r} in {MODEL}, but "
                f"another file calls it {token.content!r}; {remedy}"
            )
    if not files.description:
        return
    vocab = _vocab(files)
    for id, piece in enumerate(model.pieces):
        if vocab.get(piece.piece) != id and id not in added:
            raise ValueError(
                f"{files.folder}: the piece {piece.piece!r} has the id {id} in {MODEL} and "
                f"{vocab.get(piece.piece)} in {JSON}; {remedy}"
            )


def _vocab(files: FolderFiles) -> dict[str, int]:
    """Piece -> id of tokenizer.json, without its added tokens."""
    vocab = files.description.get("model", {}).get("vocab", {})
    if isinstance(vocab, dict):
        return vocab
    return {entry[0]: id for id, entry in enumerate(vocab)}


def goes_beyond(files: FolderFiles, model: ModelProto) -> bool:
    """Tokens or rules of the folder that are not the sentencepiece model's."""
    flags: dict[str, bool] = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    for id, token in files.added().items():
        known = id < len(model.pieces) and model.pieces[id].type in (UNKNOWN, CONTROL)
        if not known or token != AddedToken(token.content, True, flags):
            return True
    if not files.description:
        return False
    try:
        check_expressible(model)
    except ValueError:
        return True  # only the folder's own tokenizer.json can be written
    steps = {key: files.description.get(key) for key in ("normalizer", "pre_tokenizer")}
    return len(_vocab(files)) > len(model.pieces) or steps != text_steps(model)


def check_named(files: FolderFiles, ids: Mapping[str, int]) -> None:
    """ValueError where a special token is named that has no id."""
    for place, token in files.all_special().items():
        if token not in ids:
            raise ValueError(
                f"{files.folder}: {place} is {token!r}, which no file gives an id; add it to "
                f"{JSON} and to the rows of the model, or remove the name"
            )


def description_of(files: FolderFiles, model: ModelProto | None) -> Mapping[str, Any]:
    """tokenizer.json with the added tokens of all files."""
    description = files.description
    if not description:
        assert model is not None
        description = fast_files(model)[JSON]
    added = files.added()
    own = replace(FolderFiles.none(files.folder), description=description).added()
    if own == added:
        return description
    entries = [token.as_json(id) for id, token in sorted((own | added).items())]
    vocab = description["model"]["vocab"]
    if isinstance(vocab, dict):
        # `tokenizers` numbers tokens that are not in the vocabulary by its size, not by their ids.
        vocab = vocab | {entry["content"]: entry["id"] for entry in entries}
    model_part = {**description["model"], "vocab": vocab}
    return {**description, "added_tokens": entries, "model": model_part}
