import pytest

from raylib.annotation.dispatch import MAX_UNITS_PER_TASK, size_of_tasks


@pytest.mark.parametrize(
    ("num_units", "num_engines", "requests_per_unit", "expected"),
    [
        (1600, 1, 1920.0, 64),  # a sixteenth would be 100
        (320, 2, 1920.0, 10),
        (8, 2, 1920.0, 1),  # one unit keeps an engine full
        (25, 2, 120.0, 7),  # small units: nine would fill a task, but each engine is to have two
        (200, 1, 120.0, 12),
        (200, 1, 8.0, 64),
        (1, 4, 10.0, 1),
        (3, 1, 0.0, 2),
    ],
)
def test_tasks_are_long_enough_to_keep_an_engine_full_and_short_enough_to_end_together(
    num_units: int, num_engines: int, requests_per_unit: float, expected: int
) -> None:
    assert size_of_tasks(num_units, num_engines, requests_per_unit) == expected
    assert expected <= MAX_UNITS_PER_TASK
