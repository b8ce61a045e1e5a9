"""No time limit on property tests (a bound on time belongs in a benchmark), and the order of the test files."""

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("no-clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no-clock")
# Two test processes and what they start share the cores: a thread that spins while it waits takes one from the others.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first: two processes share the files in order, and one would wait for the other at the end."""
    items.sort(key=lambda item: item.path.name != "test_faults.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the fault suite goes on."""
    parser.addoption("--kills", type=int, default=3, help="random kills in tests/integration/test_faults.py")
