import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

# Threads that wait for each other do so asleep: a run shares out all cores, and on a busy machine
# the waiting takes more time than the work. Read as torch is imported, in every process of a test.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("KMP_BLOCKTIME", "0")

from tests.helpers.draws import register_profiles, start_alike
from tests.helpers.sizes import SAMPLE_SCALE
from tests.helpers.tiers import TIERS, is_long, mark_tiers

register_profiles()

TESTS = Path(__file__).resolve().parent


def pytest_configure(config):
    """Run a file outside the fast tier if the command line names it, although no `-m` was given."""
    arguments = config.invocation_params.args
    named = any(tier in Path(word.partition("::")[0]).parts for word in arguments for tier in TIERS)
    if named and not any(word.startswith("-m") for word in arguments):
        config.option.markexpr = "not slow"


def pytest_xdist_auto_num_workers(config):
    """Share a whole tier among up to four cores; run named files, and `-s`, in this process."""
    whole = config.args == config.getini("testpaths") and config.option.capture != "no"
    return min(4, os.cpu_count() or 1) if whole else 0


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark tests by their folder, and run the longest files first.

    The longest files come first, so that no worker is left alone with one at the end.
    """
    mark_tiers(items)
    items.sort(key=lambda item: not is_long(item))


def pytest_fixture_setup(fixturedef):
    """What a fixture draws and computes does not depend on the tests before it."""
    start_alike()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    """What a test draws and computes does not depend on fixtures, which other tests may share."""
    start_alike()


@pytest.fixture(scope="session")
def build_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Builder of folders that all test processes of a session share: the first one fills them."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def build(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = root / name, root / f"{name}.done"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return build


@pytest.fixture(scope="session")
def sample(build_once) -> Path:
    """The embedded sample at a small scale: to be read only."""
    from data.sample.build import build_sample

    return build_once("sample", lambda root: build_sample(root, scale=SAMPLE_SCALE))


@pytest.fixture(scope="session")
def finished(build_once, sample) -> Path:
    """A run of two stages that is finished: to be read, and copied before a test writes."""
    from tests.helpers.runs import configure, two_stages
    from train import train

    def fill(runs: Path) -> None:
        train(configure(*two_stages(sample, runs, "logging.row_losses=true")))

    return build_once("finished", fill) / "run"


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Callable[..., Any]]:
    """Calls a function of a test module in a process where Triton interprets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            yield lambda function, *arguments: pool.submit(function, *arguments).result()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real corpora and tokenizers, on machines that have them."""
    folder = TESTS.parents[1] / "shared"
    if not folder.is_dir():
        pytest.skip("needs real corpora and tokenizers, which are not part of the project")
    return folder
