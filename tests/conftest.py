"""No time limit on property tests (a bound on time belongs in a benchmark), and which process runs which test file."""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("no-clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no-clock")


# Two processes share the files, in order: a long one at the end would be waited for by the other process.
LONGEST = ("test_faults.py", "test_partition.py", "test_endpoint.py", "test_pipeline.py", "test_sft.py")
SHARE_A_RUN = ("test_faults.py", "test_partition.py", "test_endpoint.py")  # the fixture `whole` takes long to make


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file is one process's, and those that share a run are too; the longest files come first."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))
    for item in items:
        name = item.path.name
        item.add_marker(pytest.mark.xdist_group("whole" if name in SHARE_A_RUN else str(item.path)))


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the fault suite goes on."""
    parser.addoption("--kills", type=int, default=3, help="random kills in tests/integration/test_faults.py")
