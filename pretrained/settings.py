"""Settings of a folder besides its network: tokens that start and end a text, sampling, and
what else others have noted. Nothing of it is lost between a folder that is read and one that is
written.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.config import ModelConfig, kept_keys
from model.config_keys import GENERATION_KEYS
from storage.json_file import read_object, shown

GENERATION = "generation_config.json"


@dataclass(frozen=True)
class FolderSettings:
    """Settings besides the network from two files of a folder.

    Attributes:
        config: keys of config.json that say nothing of the network.
        generation: content of generation_config.json; where there is none, what config.json says
            of generation, as transformers takes it.
    """

    config: Mapping[str, Any]
    generation: Mapping[str, Any]

    @property
    def eos_ids(self) -> list[int]:
        """Every token that ends a text, those of generation_config.json first."""
        both = (self.generation.get("eos_token_id"), self.config.get("eos_token_id"))
        return _once(id for named in both for id in _ids(named))

    @property
    def notes(self) -> list[str]:
        """Notes for the user of the network, one sentence each."""
        notes = []
        if self.config.get("attention_dropout"):
            notes.append(
                f"config.json: attention_dropout={self.config['attention_dropout']} is kept, but "
                "not applied in training"
            )
        if self.config.get("auto_map"):
            notes.append("config.json: auto_map is kept, but the code that it names is not run")
        return notes

    def ended_by(self, id: int | None) -> "FolderSettings":
        """The settings with one more token that ends a text; None for none."""
        if id is None or id in self.eos_ids:
            return self
        ends = [*self.eos_ids, id]
        named = ends if len(ends) > 1 else id
        return replace(self, generation={**self.generation, "eos_token_id": named})

    def without_ids_from(self, first: int) -> "FolderSettings":
        """The settings where ids from `first` on have got, or lost, their meaning."""
        suppressed = [id for id in self.generation.get("suppress_tokens") or () if id < first]
        kept = {k: v for k, v in self.generation.items() if k != "suppress_tokens"}
        more = {"suppress_tokens": suppressed} if suppressed else {}
        return replace(self, generation=kept | more)

    def joined(self, other: "FolderSettings", tokens: int) -> tuple["FolderSettings", list[str]]:
        """The settings with what only another model says, and the keys in which the two differ.

        EOS tokens are those of both.

        Args:
            tokens: ids below mean the same token in both.
        """
        ends = _once((*self.eos_ids, *(id for id in other.eos_ids if id < tokens)))
        theirs = {k: v for k, v in other.generation.items() if not _names_other_ids(k, v, tokens)}
        generation = theirs | dict(self.generation)
        differ = [
            key
            for key in sorted(other.generation)
            if key not in ("eos_token_id", "transformers_version", "_from_model_config")
            and generation.get(key) != other.generation[key]
        ]
        if ends:
            generation["eos_token_id"] = ends if len(ends) > 1 else ends[0]
        return replace(self, generation=generation), differ


NO_SETTINGS = FolderSettings({}, {})


def read_settings(folder: Path) -> FolderSettings:
    """Settings besides the network from the files of a folder.

    Raises:
        ValueError: a file is damaged, or names a token by an id outside the network's rows.
    """
    raw = read_object(folder / "config.json")
    path = folder / GENERATION
    if path.is_file():
        generation = read_object(path)
    else:
        generation = {k: v for k, v in raw.items() if k in GENERATION_KEYS and v is not None}
    rows = raw.get("vocab_size")
    assert isinstance(rows, int), "the network has been read from it"
    for file, values in ((folder / "config.json", raw), (path, generation)):
        _check_ids(file, values, rows)
    return FolderSettings(kept_keys(raw), generation)


def settings_to_write(
    settings: FolderSettings, config: ModelConfig, bos_id: int | None, eos_id: int | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Keys of config.json besides the network, and the content of generation_config.json.

    Args:
        config: of the network that is written; its padded ids become `suppress_tokens`.
        bos_id, eos_id: those of the tokenizer written to the same folder, if any.
    """
    kept = settings.without_ids_from(config.num_tokens)
    others, generation = dict(kept.config), dict(kept.generation)
    for key, id in (("bos_token_id", bos_id), ("eos_token_id", eos_id)):
        if id is not None:
            for values in (others, generation):
                if values.get(key) is None:
                    values[key] = id
    named = (*kept.eos_ids, *([] if eos_id is None else [eos_id]))
    ends = _once(id for id in named if id < config.vocab_size)
    if set(ends) != set(_ids(generation.get("eos_token_id"))):
        generation["eos_token_id"] = ends if len(ends) != 1 else ends[0]
    padded = range(config.num_tokens, config.vocab_size)
    if suppressed := [*generation.get("suppress_tokens", ()), *padded]:
        generation["suppress_tokens"] = suppressed
    return others, generation


def _check_ids(path: Path, values: Mapping[str, Any], rows: int) -> None:
    """ValueError for a token that is named by no id of the network."""
    for key in ("eos_token_id", "bos_token_id", "pad_token_id", "suppress_tokens"):
        value = values.get(key)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        # Some folders have -1 for a padding token that there is none of.
        least = -1 if key == "pad_token_id" else 0
        wrong = [id for id in ids if type(id) is not int or not least <= id < rows]
        if wrong or (isinstance(value, list) and key in ("bos_token_id", "pad_token_id")):
            raise ValueError(
                f"{path}: {key}={shown(value)}: not the id of a token, from 0 to {rows - 1}; "
                "correct it, or remove the key"
            )


def _names_other_ids(key: str, value: Any, tokens: int) -> bool:
    """True for a setting that holds an id which the other model does not have."""
    return key.endswith(("_token_id", "_tokens")) and any(id >= tokens for id in _ids(value))


def _ids(named: Any) -> list[int]:
    return [] if named is None else named if isinstance(named, list) else [named]


def _once(ids: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(ids))
