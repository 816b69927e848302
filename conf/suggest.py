"""Command lines as people type them: what is unclear is answered before Hydra composes anything."""

import difflib
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from conf.grammar import Argument, field_of, rendered, split_argument
from conf.words import FIELDS, NOTES

CONF = Path(__file__).resolve().parent
GROUP_ROOTS = (CONF, CONF.parent / "experiments" / "studies" / "tspt" / "conf")
"""Folders that hold config groups: conf/, and what `hydra.searchpath` in conf/train.yaml adds."""
APPENDED = {"train": ("experiment", "arm")}
"""Groups that a `+` adds to the defaults of a command."""
_NEAR = 0.75
"""Likeness of a typed key and a key that exists from which the key is suggested."""
_AWAY = 0.05
"""Penalty in likeness of a key in another group."""


@dataclass(frozen=True)
class CommandLine:
    """A command line without the program.

    Attributes:
        flags: options of Hydra with their values, such as `--cfg job` and `-m`.
        words: everything else, in order.
    """

    flags: list[str]
    words: list[str]

    @property
    def sweeps(self) -> bool:
        """Check if the command line describes several runs."""
        return bool({"-m", "--multirun"} & set(self.flags))


def split_flags(arguments: Sequence[str]) -> CommandLine:
    """Part Hydra's options from the rest; other options stay among the words."""
    actions = get_args_parser()._option_string_actions
    flags, words, rest = [], [], list(arguments)
    while rest:
        word = rest.pop(0)
        action = actions.get(word.partition("=")[0])
        if action is None:
            words.append(word)
            continue
        flags.append(word)
        takes_value = action.nargs != 0 and "=" not in word
        if takes_value and rest and (action.nargs != "?" or rest[0] in (action.choices or ())):
            flags.append(rest.pop(0))
    return CommandLine(flags, words)


def check_overrides(config_name: str, arguments: Sequence[str]) -> list[str]:
    """The arguments as Hydra reads them.

    Args:
        config_name: primary config, for example "train".
        arguments: the command line without the program.

    Raises:
        ValueError: a key is unknown, a value does not fit its field or can be read in two ways;
            names the nearest key, or what to type.
    """
    line = split_flags(arguments)
    if _has_other_config(line.flags):  # of the user's own, which this does not know
        return list(arguments)
    overrides = [split_argument(word) for word in line.words]
    typed = [override for override in overrides if override is not None]
    present = _groups_of(config_name, typed)
    chosen = [one for one in typed if _is_choice(one, config_name, present)]
    for choice in chosen:
        _check_choice(choice, line.sweeps)
    first = [_first_choice(choice) for choice in chosen]
    tree = _compose(config_name, first)
    known = [key for key in _keys(tree) if key.partition(".")[0] != "hydra"]
    answer = _Answer(config_name, tree, known)
    for number, override in enumerate(overrides):
        if override is None:
            answer.refuse_word(line.words, number)
        if override not in chosen and override is not None:
            answer.check_key(override)
    read = []
    for override in typed:
        is_plain = override in chosen or override.sign == "~" or _is_hydra(override)
        field = None if is_plain else field_of(tree, override.key)
        if field is None or override.value is None:
            read.append(str(override))
        else:
            text = rendered(override, field, tree, sweeps=line.sweeps)
            read += _in_place_of_keys(override, tree, text)
    # What is left: what only the whole configuration shows.
    if line.sweeps:
        _refuse_shared_folders(config_name, tree, read)
    else:
        _compose(config_name, read)
    return [*read, *line.flags]


def _refuse_shared_folders(config_name: str, tree: DictConfig, overrides: Sequence[str]) -> None:
    """Compare the folders, or files, that the runs of a sweep write.

    Raises:
        ValueError: two runs write the same one; the second would be refused after the first.
    """
    keys = ("runs_folder", "name") if config_name == "train" else ("out", "name")
    keys = [key for key in keys if key in list(tree)]  # also one without a value
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    typed = [one.key_or_group for one in parsed]
    named = next((key for key in ("name", "out") if key in keys and key in typed), None)
    if named is None or "hydra/sweeper" in typed:
        return
    swept = [one.key_or_group for one in parsed if one.is_sweep_override()]
    fields = [key for key in swept if key != named and not is_group(key)]
    (points,) = BasicSweeper.split_arguments(parsed, None)
    seen: set[str] = set()
    for point in points:
        composed = _compose(config_name, point)
        try:
            parts = [OmegaConf.select(composed, key) for key in keys]
        except OmegaConfBaseException:  # of `${hydra:...}`, which only a run of Hydra resolves
            return
        folder = "/".join(map(str, parts))
        if folder in seen and None not in parts:
            form = f"{named}='{parts[keys.index(named)]}-${{{fields[0]}}}'" if fields else ""
            without = "" if OmegaConf.is_missing(tree, named) else f"leave {named} out"
            remedy = " or ".join(filter(None, [without, form]))
            raise ValueError(
                f"{named}={parts[keys.index(named)]}: several runs of the sweep would write "
                f"{folder}; {remedy or f'give each run {named} that differs'}"
            )
        seen.add(folder)


def _in_place_of_keys(override: Argument, tree: DictConfig, text: str) -> list[str]:
    """Overrides by which a mapping that is typed whole replaces the mapping that is there.

    Hydra would merge the two: what nobody typed would stay.
    """
    node = OmegaConf.select(tree, override.key)
    is_whole = not override.sign and (override.value or "").strip().startswith("{")
    if not is_whole or not isinstance(node, DictConfig) or is_dataclass(node._metadata.object_type):
        return [text]
    return [*(f"~{override.key}.{name}" for name in node), f"+{text}"]


def _has_other_config(flags: list[str]) -> bool:
    options = ("--config-name", "-cn", "--config-path", "-cp", "--config-dir", "-cd")
    return any(flag.partition("=")[0] in (*options, "--experimental-rerun") for flag in flags)


def _is_hydra(override: Argument) -> bool:
    return override.key.partition(".")[0].partition("/")[0] == "hydra"


def _groups_of(config_name: str, typed: Sequence[Argument]) -> Collection[str]:
    """Groups that a command has, with those that a `+` adds; nothing where none is typed."""
    if not any(is_group(one.key.partition("@")[0]) for one in typed):
        return ()
    plus = [one for one in typed if one.sign == "+" and _is_appended(one, config_name)]
    added = [_first_choice(one) for one in plus if one.value in choices(one.key)]
    return compose_with_groups(config_name, added)[1]


def _is_choice(override: Argument, config_name: str, present: Collection[str]) -> bool:
    """Check if an override chooses a file of a group that the command has.

    Raises:
        ValueError: it does, but with a `+` too many or too few.
    """
    group = override.key.partition("@")[0]
    if "." in group or not is_group(group):
        return False
    if override.sign == "+" and _is_appended(override, config_name):
        return True
    if group in present:
        if override.sign in ("+", "++"):
            raise ValueError(
                f"{override}: {group} is chosen already; type {override.key}={override.value}"
            )
        return True
    if _is_appended(override, config_name) and override.sign != "~":
        if override.value in choices(group) or override.sign == "++":
            raise ValueError(f"{override}: type +{override.key}={override.value}")
        return not override.sign and _is_near_choice(group, override.value)
    return False


def _is_appended(override: Argument, config_name: str) -> bool:
    return override.key in APPENDED.get(config_name, ())


def compose_with_groups(
    config_name: str, added: Sequence[str] = ()
) -> tuple[DictConfig, dict[str, str]]:
    """A configuration, and the groups among its defaults with what is chosen of each."""
    composed = _compose(config_name, added, with_hydra=True)
    chosen = composed.hydra.runtime.choices.items()
    groups = {str(group).partition("@")[0]: choice for group, choice in chosen}
    with read_write(composed), open_dict(composed):
        del composed["hydra"]
    return composed, groups


def is_group(name: str) -> bool:
    """Check if a config group of this name exists."""
    return any((root / name).is_dir() for root in GROUP_ROOTS)


def choices(group: str) -> list[str]:
    """Names of the files of a group."""
    return sorted(path.stem for root in GROUP_ROOTS for path in (root / group).glob("*.yaml"))


def _is_near_choice(group: str, value: str | None) -> bool:
    return bool(difflib.get_close_matches(value or "", choices(group), n=1))


def _check_choice(choice: Argument, sweeps: bool) -> None:
    group, options = choice.key.partition("@")[0], choices(choice.key.partition("@")[0])
    if choice.sign == "~":
        return
    values = [value.strip().strip("'\"") for value in (choice.value or "").split(",")]
    for value in values:
        if value not in (*options, "null"):
            near = difflib.get_close_matches(value, options, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"no such option: {group}={value}{hint}; there are {', '.join(options)}"
            )
    if len(values) > 1 and not sweeps:
        raise ValueError(
            f"{choice}: several values make a sweep, which -m starts: python ... -m {choice}"
        )


def _first_choice(group: Argument) -> str:
    """A group override with one choice, where it may be a sweep."""
    value = None if group.value is None else group.value.split(",")[0].strip()
    return str(Argument(group.sign, group.key, value))


@dataclass(frozen=True)
class _Answer:
    """Message for a word that is not an override, or an override without a value.

    Attributes:
        known: keys of the configuration `tree`.
    """

    config_name: str
    tree: DictConfig
    known: list[str]

    def check_key(self, override: Argument) -> None:
        """ValueError if the key is unknown, or takes no value with such a sign."""
        key, value, sign = override.key, override.value or "", override.sign
        if _is_hydra(override):
            return
        field = field_of(self.tree, key)
        if field is None or (sign == "~" and not field.exists):
            raise ValueError(self._no_such(key, value))
        if field.exists and sign == "+":
            raise ValueError(f"{override}: {key} is there already; type {key}={shlex.quote(value)}")
        if not (field.exists or field.is_open or sign):
            raise ValueError(f"{key} is new; type +{key}={shlex.quote(value)}")

    def refuse_word(self, words: Sequence[str], number: int) -> None:
        """ValueError for a word that is not an override, with the probable meaning."""
        word = words[number]
        following = words[number + 1] if number + 1 < len(words) else None
        if word.startswith("-"):
            key, equal, value = word.lstrip("-").partition("=")
            key = key.replace("-", "_")
            if not equal and following is not None and not following.startswith("-"):
                value = "" if "=" in following else following
            meant = self._meant(key, value) or "--help shows them"
            raise ValueError(f"{word}: options are typed without dashes; {meant}")
        is_word = word in FIELDS or word in NOTES
        is_followed = following is not None and following.startswith("=")
        if word in self.known or (is_word and (number == 0 or is_followed)):
            if following is not None and following.startswith("="):
                value = following[1:] or next(iter(words[number + 2 :]), "")
                raise ValueError(f"{word} {following}: no blanks around `=`; {word}={value}")
            field = field_of(self.tree, word)
            now = f" (now {self._now(word)})" if field is not None else ""
            raise ValueError(f"{word}: no value; {self._meant(word, '')}{now}")
        if "=" in word and not word.startswith("="):
            raise ValueError(self._no_such(*word.partition("=")[::2]))
        before = [split_argument(text) for text in words[:number]]
        last = next((one for one in reversed(before) if one is not None), None)
        if last is not None and last.value is not None and field_of(self.tree, last.key):
            begin = len(before) - 1 - before[::-1].index(last)
            several = list(words[begin + 1 :])
            cut = next((n for n, text in enumerate(several) if split_argument(text)), len(several))
            whole = " ".join([last.value, *several[:cut]]).strip()
            raise ValueError(
                f"{word!r} has no name; if it belongs to {last.key}, put quotes around the whole "
                f"value: {last.key}={shlex.quote(whole)}"
            )
        missing = [str(key) for key in OmegaConf.missing_keys(self.tree) if "." not in str(key)]
        first = next((key for key in self.tree if key in missing), None)
        form = f"{first}={shlex.quote(word)}" if first else "name=value"
        raise ValueError(f"{word!r}: options are typed with their names, as in {form}")

    def _no_such(self, key: str, value: str) -> str:
        root = key.partition(".")[0]
        options = ", ".join(choices(root))
        if options and root in self.tree and self.tree[root] is None and "." in key:
            return f"{key}: {root} is null here; choose one first ({root}={options})"
        meant = self._meant(key, value)
        return f"no such option: {key}; {meant or '--help shows the options'}"

    def _meant(self, key: str, value: str) -> str:
        """Suggestion for an unknown key, as part of a sentence; empty without a suggestion."""
        word = key.rpartition(".")[2].lower().replace("-", "_")
        shown = shlex.quote(value) if value else "..."
        if key in self.known:
            return f"type {key}={shown}"
        typo = difflib.get_close_matches(key, self.known, n=1, cutoff=0.9)
        is_word = word in FIELDS or word in NOTES
        if typo and (not is_word or typo[0].rpartition(".")[2] == word):
            return f"did you mean {typo[0]}? Type {typo[0]}={shown}"
        siblings = [f"{key.rpartition('.')[0]}.{name}".lstrip(".") for name in FIELDS.get(word, ())]
        for name in [*siblings, *FIELDS.get(word, ())]:
            if name in self.known:
                return f"did you mean {name}? Type {name}={shown}"
            if name.startswith("lora.") and "lora" in self.known:
                return f"did you mean {name}? Type lora=r8 (or r64) and {name}={shown}"
        needed, note = NOTES.get(word, ("", ""))
        if needed in self.known:
            return note
        groups = [path.name for path in CONF.iterdir() if path.is_dir() and path.name in self.tree]
        near = _nearest(key, sorted({*self.known, *groups}))
        if near and value and near not in groups:
            return f"did you mean {near}? Type {near}={shown}"
        return f"did you mean {near}?" if near else ""

    def _now(self, key: str) -> Any:
        if OmegaConf.is_missing(self.tree, key):
            return "not given"
        value = OmegaConf.select(self.tree, key)
        return "null" if value is None else value


def _nearest(word: str, known: list[str]) -> str:
    """The known key of which a word is a misspelling, or the right name in the wrong place.

    Common letters do not imply a common meaning: without a key near enough the result is empty.
    """
    best = max(known, key=lambda key: _likeness(word, key), default="")
    return best if best and _likeness(word, best) >= _NEAR else ""


def _likeness(word: str, key: str) -> float:
    """Likeness of two keys in [0, 1]: that of their least similar parts.

    Only the last parts count where the keys have different numbers of parts. A name that has all
    words of the known name and some more (`every_steps`, `every`) is near.
    """
    parts, others = word.split("."), key.split(".")
    (*above, name), (*above_other, other) = parts, others
    likeness = difflib.SequenceMatcher(None, name, other).ratio()
    if set(other.split("_")) < set(name.split("_")):
        likeness = max(likeness, _NEAR)
    in_place = 0.0  # the likeness of the groups that hold them
    if len(above) == len(above_other):
        pairs = zip(above, above_other, strict=True)
        in_place = min([1.0, *(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)])
    elsewhere = likeness - _AWAY if name == other or len(above) != len(above_other) else 0.0
    return max(min(likeness, in_place), elsewhere)


def _compose(config_name: str, overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    held = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose(config_name, list(overrides), return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_one_sentence(error)) from None
    finally:
        GlobalHydra.instance().hydra = held


def _one_sentence(error: BaseException) -> str:
    """Hydra's message without its stack of hints, and with the key that it belongs to."""
    sentences = []
    for part in (error, error.__cause__):
        lines = [line.strip() for line in str(part).splitlines()] if part is not None else []
        key = next((line.partition(": ")[2] for line in lines if line.startswith("full_key:")), "")
        said = " ".join(line for line in lines[:2] if not re.match("full_key:|object_type=", line))
        said = said.partition(" See https://hydra.cc")[0]
        if said:
            sentences.append(f"{key}: {said}" if key and key not in said else said)
    return "; ".join(sentences)


def _keys(tree: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in tree:
        path = f"{prefix}{key}"
        yield path
        if OmegaConf.is_missing(tree, key) or OmegaConf.is_interpolation(tree, str(key)):
            continue
        value = tree._get_node(key)
        if isinstance(value, DictConfig) and not value._is_none():
            yield from _keys(value, f"{path}.")
