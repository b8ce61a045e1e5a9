"""No time limit on property tests (a bound on time belongs in a benchmark), and the order of the test files."""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("no-clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no-clock")


# Two processes share the files, in order: a long one at the end would be waited for by the other process.
LONGEST = ("test_faults.py", "test_pipeline.py", "test_annotate.py", "test_sft.py", "test_dpo.py", "test_distill.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others as they are."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the fault suite goes on."""
    parser.addoption("--kills", type=int, default=3, help="random kills in tests/integration/test_faults.py")
