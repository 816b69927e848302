"""`@command("train")`: how every entry point of the project meets Hydra.

Values are taken as they are typed (`conf.grammar`), an unknown key is answered with the nearest one
(`conf.suggest`), `--help` shows the usage and the fields (`conf.help`). A ValueError, what the
operating system refuses, and Ctrl-C end as one line on stderr, with exit code 1, 1 and 130;
HYDRA_FULL_ERROR=1 shows where an error came from. A sweep inside a multi-rank torchrun is refused.
"""

import math
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NoReturn

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


def register_schema(name: str, schema: type, free_keys: Collection[str] = ()) -> None:
    """Make a dataclass known to Hydra.

    Args:
        free_keys: mappings whose keys are the user's own; Hydra would ask for a + before each.
    """
    node = OmegaConf.structured(schema)
    for key in free_keys:
        OmegaConf.set_struct(OmegaConf.select(node, key), False)
    ConfigStore.instance().store(name=name, node=node)


def command(
    config_name: str, *, resumes: str = "the same command begins again"
) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Turn a function of a composed configuration into a program.

    Args:
        resumes: how to go on after Ctrl-C; a task that knows better raises a KeyboardInterrupt
            with a text.
    """

    def decorate(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        @wraps(task)
        def guarded(composed: DictConfig) -> None:
            with plain_errors(f"stopped; {resumes}"):
                _refuse_sweep_under_torchrun()
                _check_given(composed, sys.modules[task.__module__].__doc__ or "")
                check_numbers(composed)
                with named_hubs(composed):
                    task(composed)

        def program() -> None:
            with plain_errors():
                if {"-h", "--help"} & set(split_flags(sys.argv[1:]).flags):
                    usage = sys.modules[task.__module__].__doc__ or ""
                    print(help_text(config_name, usage))
                    return
                sys.argv[1:] = check_overrides(config_name, sys.argv[1:])
                main = hydra.main(
                    version_base="1.3", config_path=str(CONF), config_name=config_name
                )
                main(_recorded(guarded))()

        return program

    return decorate


def _check_given(composed: DictConfig, usage: str) -> None:
    """ValueError that names the fields without a value; the usage is printed before the message."""
    if missing := sorted(OmegaConf.missing_keys(composed)):
        if os.environ.get("RANK", "0") == "0":
            print(usage.strip(), file=sys.stderr, end="\n\n")
        raise ValueError(f"{', '.join(missing)}: must be given")


def check_numbers(tree: DictConfig | ListConfig, prefix: str = "") -> None:
    """ValueError for a number that nothing here computes with: NaN, infinity, beyond 64 bits.

    Which of the others a field takes is its dataclass's to say.
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
    """Let an error of a model that is not here say how to get it."""
    try:
        yield
    except ValueError as error:
        if not (hint := download_hint(str(error), composed)):
            raise
        raise ValueError(f"{error}{hint}") from error


@contextmanager
def plain_errors(stopped: str = "stopped") -> Iterator[None]:
    """End the program with one line where the user can act on what went wrong.

    Args:
        stopped: what to say after Ctrl-C, unless the KeyboardInterrupt has a text.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends at once, without a word
        if os.environ.get("RANK", "0") == "0":
            print(str(error) or stopped, file=sys.stderr, flush=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except ValueError as error:
        _leave(error, str(error))
    except OSError as error:
        _leave(error, system_error(error))


def _leave(error: Exception, said: str) -> NoReturn:
    if "HYDRA_FULL_ERROR" in os.environ:
        raise error
    rank = f"[rank {os.environ['RANK']}] " if os.environ.get("RANK") else ""
    sys.exit(f"{rank}error: {said}")


def _recorded(task: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Let torchrun report the failing rank; inside hydra.main, which turns errors into exits."""
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
