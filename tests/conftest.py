import os
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

register_profiles()

LONGEST = (
    *("test_readme.py", "test_train.py", "test_resume.py", "test_verify.py", "test_prepare.py"),
    *("test_append.py", "test_apart.py", "test_checkpoint_ranks.py", "test_resume_settings.py"),
)


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker is left alone with one at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_fixture_setup(fixturedef):
    """What a fixture draws and computes does not depend on the tests before it."""
    start_alike()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    """What a test draws and computes does not depend on fixtures, which other tests may share."""
    start_alike()


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """The embedded sample at a small scale, built once for all tests."""
    from data.sample.build import build_sample

    root = tmp_path_factory.mktemp("sample")
    build_sample(root, scale=SAMPLE_SCALE)
    return root


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
    folder = Path(__file__).resolve().parent.parent.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs real corpora and tokenizers, which are not part of the project")
    return folder
