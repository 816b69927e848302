"""`@command("train")`: how every entry point of the project meets Hydra.

A mistyped key is answered with the nearest one, a ValueError ends as one sentence on stderr and
exit code 1 (HYDRA_FULL_ERROR=1 shows where it came from), and a sweep inside a multi-rank torchrun
is refused.
"""

import os
import re
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import wraps

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from conf.suggest import CONF, check_overrides


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
    config_name: str, *, texts: Collection[str] = ()
) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Turn a function of a composed configuration into a program.

    Args:
        texts: fields whose values are taken as they are typed: any text, and nothing of Hydra's
            grammar, which knows neither Chinese nor commas outside quotes.
    """

    def decorate(task: Callable[[DictConfig], None]) -> Callable[[], None]:
        @wraps(task)
        def guarded(composed: DictConfig) -> None:
            with plain_errors():
                _refuse_sweep_under_torchrun()
                task(composed)

        def program() -> None:
            sys.argv[1:] = [_literal(argument, texts) for argument in sys.argv[1:]]
            with plain_errors():
                check_overrides(config_name, sys.argv[1:])
            main = hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)
            main(_recorded(guarded))()

        return program

    return decorate


def _literal(argument: str, texts: Collection[str]) -> str:
    """An override of a text field with its value in quotes."""
    key, given, value = argument.partition("=")
    if (
        not given
        or key not in texts
        or value == "null"
        or re.fullmatch(r"(['\"]).*\1", value, re.S)
    ):
        return argument
    # In quotes, a backslash means something only before a quote, and `${` an interpolation.
    quoted = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", value)
    ending = len(quoted) - len(quoted.rstrip("\\"))
    quoted += "\\" * ending
    return f"{key}='{quoted}'".replace("${", "\\${")


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the program with one sentence where a ValueError says what the user can mend."""
    try:
        yield
    except ValueError as error:
        if "HYDRA_FULL_ERROR" in os.environ:
            raise
        rank = f"[rank {os.environ['RANK']}] " if "RANK" in os.environ else ""
        sys.exit(f"{rank}error: {error}")


def _recorded(task: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """Let torchrun report the failing rank; inside hydra.main, which turns errors into exits."""
    if "RANK" not in os.environ:
        return task
    from torch.distributed.elastic.multiprocessing.errors import record

    return record(task)


def _refuse_sweep_under_torchrun() -> None:
    if HydraConfig.get().mode == RunMode.MULTIRUN and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "a sweep (-m) inside a multi-rank torchrun would run every job on every rank; start "
            "one torchrun per job, in a shell loop or as one Slurm job each"
        )
