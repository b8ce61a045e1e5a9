import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylib.logs.budget import BASE_MB, MIN_MB, num_passes, plan_budget


@given(st.integers(MIN_MB, 1 << 20))
def test_more_memory_means_larger_steps_within_it(task_memory_mb: int) -> None:
    budget, larger = plan_budget(task_memory_mb), plan_budget(task_memory_mb + 1)
    assert all(0 < small < large for small, large in zip(budget, larger, strict=True))
    assert sum(budget) <= (task_memory_mb - BASE_MB) << 20


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(ValueError, match=f"must be at least {MIN_MB}"):
        plan_budget(MIN_MB - 1)


@given(st.integers(0, 1 << 45), st.integers(MIN_MB, 1 << 16))
def test_passes_are_as_few_as_the_memory_allows(num_bytes: int, task_memory_mb: int) -> None:
    pass_bytes = plan_budget(task_memory_mb).pass_bytes
    count = num_passes(num_bytes, pass_bytes)
    assert count * pass_bytes >= num_bytes
    assert count == 1 or (count - 1) * pass_bytes < num_bytes
