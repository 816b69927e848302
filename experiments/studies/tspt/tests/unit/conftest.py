"""The rule of the fast tier, as in tests/unit."""

from tests.unit.conftest import stay_in_this_process  # noqa: F401
