"""Fixtures and hooks of tests/ for the tests of studies."""

from tests.conftest import (  # noqa: F401
    build_once,
    finished,
    pytest_collection_modifyitems,
    pytest_fixture_setup,
    pytest_runtest_call,
    sample,
    shared,
)
