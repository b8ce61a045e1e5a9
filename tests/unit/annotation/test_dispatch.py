import pytest

from raylib.annotation.dispatch import MAX_UNITS_PER_TASK, sizes_of_tasks


@pytest.mark.parametrize(
    ("num_units", "num_engines", "expected"),
    [
        (25, 2, [3, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        (3, 1, [1, 1, 1]),
        (1, 4, [1]),
        (0, 1, []),
    ],
)
def test_tasks_get_shorter_towards_the_end(num_units: int, num_engines: int, expected: list[int]) -> None:
    assert sizes_of_tasks(num_units, num_engines) == expected


@pytest.mark.parametrize("num_units", [1, 7, 500, 48_829])
def test_every_unit_is_in_one_task(num_units: int) -> None:
    sizes = sizes_of_tasks(num_units, 8)
    assert sum(sizes) == num_units
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) <= MAX_UNITS_PER_TASK
    assert sizes[-1] == 1
