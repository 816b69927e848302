"""`@command("judge", JudgeConfig)`: the program around the function of a command.

The dataclass is the whole description of a command: its fields are the options, with their types,
defaults and docstrings. Values are taken as they are typed (`conf.grammar`), an unknown key is
answered with the nearest one (`conf.suggest`), and `--help` shows usage and fields (`conf.help`). A
ValueError, an OSError and Ctrl-C end as one line on stderr, with exit code 1, 1 and 130;
HYDRA_FULL_ERROR=1 shows the traceback. A sweep inside a multi-rank torchrun is refused.
"""

import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import wraps
from types import UnionType
from typing import Any, NoReturn, TypeVar, get_args, get_origin

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from conf.help import help_text
from conf.hub import download_hint
from conf.suggest import CONF, check_overrides, split_flags
from storage.errors import system_error

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C has ended, as shells have it: 128 + SIGINT."""
COMMANDS: dict[str, tuple[type, ...]] = {}
"""Schemas of every command that has been imported, by its name."""
C = TypeVar("C")


def register_command(name: str, schema: type | Mapping[str, type]) -> None:
    """Make the configuration of a command known to Hydra, as `name`.

    Without conf/<name>.yaml the configuration is the dataclass alone. A command with groups has
    such a file; it takes the dataclass by the name `<name>_schema`.

    Args:
        schema: dataclass of the fields, or several by kind, stored as `<kind>_schema`.
    """
    kinds = schema if isinstance(schema, Mapping) else {name: schema}
    COMMANDS[name] = tuple(kinds.values())
    store = ConfigStore.instance()
    for kind, one in kinds.items():
        node = OmegaConf.structured(one)
        for key in marked_fields(one, "free_keys"):
            OmegaConf.set_struct(OmegaConf.select(node, key), False)
        store.store(name=f"{kind}_schema", node=node)
    if not (CONF / f"{name}.yaml").is_file():
        defaults = {"defaults": [f"{name}_schema", "hydra_quiet", "_self_"]}
        store.store(name=name, node=OmegaConf.create(defaults))


def marked_fields(schema: type, mark: str) -> tuple[str, ...]:
    """Dotted names of the fields of a dataclass, and of those in it, whose metadata has a mark.

    `launch`: the field says where and how a run is carried out, not what the run computes.
    `machine`: the meaning of the field depends on the machine. `free_keys`: a mapping whose keys
    the user chooses; Hydra would ask for a + before each new key.
    """
    found: list[str] = []
    for part in fields(schema):
        if part.metadata.get(mark):
            found.append(part.name)
        kinds = get_args(part.type) if get_origin(part.type) is UnionType else (part.type,)
        for kind in kinds:
            if isinstance(kind, type) and is_dataclass(kind):
                found += [f"{part.name}.{name}" for name in marked_fields(kind, mark)]
    return tuple(found)


def command(
    name: str,
    schema: type[C] | Mapping[str, type],
    *,
    stopped: str | Callable[[C], str] = "stopped; run the same command again",
) -> Callable[[Callable[[C], None]], Callable[[], None]]:
    """Turn a function of a configuration into a program.

    Args:
        name: of the command, and of its configuration.
        schema: see `register_command`.
        stopped: line to print after Ctrl-C; names the remedy.
    """
    register_command(name, schema)

    def decorate(task: Callable[[C], None]) -> Callable[[], None]:
        usage = sys.modules[task.__module__].__doc__ or ""

        @wraps(task)
        def guarded(composed: DictConfig) -> None:
            with plain_errors():
                _refuse_sweep_under_torchrun()
                _check_given(composed, usage)
                check_numbers(composed)
                with named_hubs(composed):
                    config: Any = OmegaConf.to_object(composed)
                    try:
                        task(config)
                    except KeyboardInterrupt as error:
                        line = stopped if isinstance(stopped, str) else stopped(config)
                        raise KeyboardInterrupt(str(error) or line) from None

        def program() -> None:
            with plain_errors():
                if {"-h", "--help"} & set(split_flags(sys.argv[1:]).flags):
                    print(help_text(name, usage))
                    return
                sys.argv[1:] = check_overrides(name, sys.argv[1:])
                main = hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)
                main(_recorded(guarded))()

        return program

    return decorate


def to_continue(config: Any) -> str:
    """Line after Ctrl-C for a command that continues what it has written to `out`."""
    if config.out is None:
        return "stopped"
    return f"stopped; run the same command again to continue {config.out}"


def _check_given(composed: DictConfig, usage: str) -> None:
    """ValueError that names the fields without a value; prints the usage first."""
    if missing := sorted(OmegaConf.missing_keys(composed)):
        if os.environ.get("RANK", "0") == "0":
            print(usage.strip(), file=sys.stderr, end="\n\n")
        raise ValueError(f"{', '.join(missing)}: must be given")


def check_numbers(tree: DictConfig | ListConfig, prefix: str = "") -> None:
    """ValueError for numbers that no field takes: NaN, infinity, integers beyond 64 bits.

    The range of a single field is checked in its dataclass.
    """
    content: Any = tree
    keys: Iterable[Any] = content.keys() if isinstance(tree, DictConfig) else range(len(content))
    for key in keys:
        if OmegaConf.is_missing(tree, key):
            continue
        value = content[key]
        if isinstance(value, (DictConfig, ListConfig)):
            check_numbers(value, f"{prefix}{key}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{prefix}{key}={value}: must be a finite number")
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(f"{prefix}{key}={value}: must fit in 64 bits")


@contextmanager
def named_hubs(composed: DictConfig) -> Iterator[None]:
    """Add the download command to errors about a model that is not on this machine."""
    try:
        yield
    except ValueError as error:
        if not (hint := download_hint(str(error), composed)):
            raise
        raise ValueError(f"{error}{hint}") from error


@contextmanager
def plain_errors(stopped: str = "stopped") -> Iterator[None]:
    """End the program with one line on stderr after an error that the user can correct.

    Args:
        stopped: line to print after Ctrl-C, unless the KeyboardInterrupt has a text.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends at once
        if os.environ.get("RANK", "0") == "0":
            print(str(error) or stopped, file=sys.stderr, flush=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of the pipe has ended, for example `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except ValueError as error:
        _leave(error, str(error))
    except OSError as error:
        _leave(error, system_error(error))


def _leave(error: Exception, message: str) -> NoReturn:
    if "HYDRA_FULL_ERROR" in os.environ:
        raise error
    rank = f"[rank {os.environ['RANK']}] " if os.environ.get("RANK") else ""
    sys.exit(f"{rank}error: {message}")


def _recorded(task: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Report a failing rank to torchrun; inside hydra.main, which turns errors into exits."""
    if "RANK" not in os.environ:
        return task
    from torch.distributed.elastic.multiprocessing.errors import record

    return record(task)


def _refuse_sweep_under_torchrun() -> None:
    under_torchrun = os.environ.get("RANK") and os.environ.get("WORLD_SIZE", "1") not in ("", "1")
    if HydraConfig.get().mode == RunMode.MULTIRUN and under_torchrun:
        raise ValueError(
            "a sweep (-m) inside a multi-rank torchrun would run every job on every rank; start "
            "one torchrun per job, in a shell loop or as one Slurm job each"
        )
