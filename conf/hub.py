"""Names of models on a hub, given where the folder of a model belongs."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

_ADDRESS = r"hf://|https://(?:huggingface\.co|hf-mirror\.com)/"
_NAME = re.compile(
    rf"(?P<address>{_ADDRESS})?(?P<data>datasets/)?"
    r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?P<rest>/\S*)?"
)
_FILE = re.compile(r"\.[A-Za-z]{2,8}", re.ASCII)


def download_hint(message: str, tree: DictConfig) -> str:
    """Download command for a missing path that has the form of a hub name; else an empty text.

    Args:
        message: what is said of the error; only values that it holds are looked at.
        tree: the configuration whose values they are.
    """
    for value in _texts(tree):
        if message.startswith(f"name={value!r}"):
            continue  # the name of a run is refused for another reason
        found = _NAME.fullmatch(value) if value in message else None
        if found is None or not _is_elsewhere(value, found):
            continue
        name, kind = found["name"], " --repo-type dataset" if found["data"] else ""
        return (
            f"; there is no such folder here: if {name} is on huggingface.co, download it first "
            f"(hf download {name}{kind} --local-dir {name.rpartition('/')[2]}) and name the folder"
        )
    return ""


def _is_elsewhere(value: str, found: re.Match[str]) -> bool:
    """Check that a text can only be a hub name: neither a file nor in an existing folder."""
    if found["address"]:
        return True
    is_file = Path(value).exists() or _FILE.fullmatch(Path(value).suffix)
    return not (is_file or found["data"] or found["rest"] or Path(value).parent.is_dir())


def _texts(tree: DictConfig | ListConfig) -> Iterator[str]:
    content: Any = tree
    keys: Iterable[Any] = content.keys() if isinstance(tree, DictConfig) else range(len(content))
    for key in keys:
        value = None if OmegaConf.is_missing(tree, key) else content[key]
        if isinstance(value, (DictConfig, ListConfig)):
            yield from _texts(value)
        elif isinstance(value, str):
            yield value
