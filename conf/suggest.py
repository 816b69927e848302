"""Answers a mistyped override with the nearest key, before Hydra composes anything."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

CONF = Path(__file__).resolve().parent


def check_overrides(config_name: str, arguments: Sequence[str]) -> None:
    """Compare the keys of command-line overrides with those that exist.

    Args:
        config_name: primary config, for example "train".
        arguments: the command line without the program; flags of Hydra are ignored.

    Raises:
        ValueError: names the unknown key and the nearest known one.
    """
    texts = [text for text in arguments if "=" in text and not text.startswith("-")]
    try:
        overrides = OverridesParser.create().parse_overrides(texts)
    except HydraException as error:
        raise ValueError(_one_sentence(error)) from None
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    chosen = []
    for override in overrides:
        if _root(override) not in groups or "." in override.key_or_group:
            continue
        for value in _values(override):
            _check_choice(override.key_or_group, value)
        chosen.append(override)
    known = set(_keys(_compose(config_name, [_first_choice(override) for override in chosen])))
    for override in overrides:
        added = override.is_add() or override.is_force_add()
        if override in chosen or added or override.is_delete():
            continue
        key = override.key_or_group
        if key not in known and not key.startswith("hydra"):
            root = _root(override)
            if root in groups and not any(name.startswith(f"{root}.") for name in known):
                options = ", ".join(sorted(path.stem for path in (CONF / root).glob("*.yaml")))
                raise ValueError(f"{key}: {root} is null here; choose one first ({root}={options})")
            raise ValueError(f"no such option: {key}{_suggestion(key, sorted(known | groups))}")
    if not any(override.is_sweep_override() for override in overrides):
        _compose(config_name, texts)  # what is left: values of a wrong type


def _check_choice(group: str, value: str) -> None:
    options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    if value not in (*options, "null"):
        raise ValueError(
            f"no such option: {group}={value}{_suggestion(value, options)}; there are "
            f"{', '.join(options)}"
        )


def _suggestion(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if not near:  # perhaps the right name in the wrong place
        near = [key for key in known if key.rsplit(".", 1)[-1] == word.rsplit(".", 1)[-1]][:1]
    return f"; did you mean {near[0]}?" if near else ""


def _first_choice(group: Override) -> str:
    """A group override with one choice, where it may be a sweep."""
    prefix = "+" if group.is_add() else ""
    return f"{prefix}{group.key_or_group}={next(iter(_values(group)))}"


def _compose(config_name: str, overrides: Sequence[str]) -> DictConfig:
    held = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose(config_name, list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_one_sentence(error)) from None
    finally:
        GlobalHydra.instance().hydra = held


def _one_sentence(error: BaseException) -> str:
    """Hydra's message without its stack of hints."""
    parts = [str(part).splitlines() for part in (error, error.__cause__) if part is not None]
    return "; ".join(" ".join(lines[:2]).strip() for lines in parts if lines)


def _values(override: Override) -> Iterator[str]:
    if override.is_sweep_override():
        yield from (str(value) for value in override.sweep_string_iterator())
    else:
        yield str(override.value())


def _root(override: Override) -> str:
    return override.key_or_group.split(".")[0].split("@")[0]


def _keys(tree: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in tree:
        path = f"{prefix}{key}"
        yield path
        if OmegaConf.is_missing(tree, key) or OmegaConf.is_interpolation(tree, str(key)):
            continue
        value = tree._get_node(key)
        if isinstance(value, DictConfig) and not value._is_none():
            yield from _keys(value, f"{path}.")
