import pytest
from conftest import START

from raylib.abtest.users import read_users
from raylib.errors import InputError

EVENTS = [
    ("u1", "a", 0, 10, 1, 0.5, None),
    ("u1", "a", 3, 20, 2, 0.0, 4.0),
    ("u1", None, -2, 30, 3, 1.5, 5.0),
    ("u2", "b", 1, 10, 0, 0.0, None),
    ("u3", "b", 1, 5, 1, 0.25, 2.0),
    ("u3", "b", 2, 5, 1, 0.25, 3.0),
    ("u4", "a", 1, 7, 7, 9.0, None),
    ("u4", "b", 2, 7, 7, 9.0, None),
    ("u5", None, -1, 8, 8, 1.0, None),
]


def test_events_of_a_user_are_summed_during_and_before(write_events):
    users = read_users(write_events(EVENTS), START)
    assert users.arm_U.tolist() == ["a", "b", "b"]  # u4 is in both arms, u5 has only a past
    assert (users.num_events, users.num_contaminated, users.num_bad) == (9, 1, 0)
    clicks = users.totals("CTR", "a")
    assert (clicks.numerator_U.tolist(), clicks.denominator_U.tolist()) == ([3.0], [30.0])
    assert (clicks.before_numerator_U.tolist(), clicks.before_denominator_U.tolist()) == ([3.0], [30.0])
    revenue = users.totals("RPM", "b")
    assert (revenue.numerator_U.tolist(), revenue.denominator_U.tolist()) == ([0.0, 500.0], [10.0, 10.0])
    ratings = users.totals("RS", "b")
    assert (ratings.numerator_U.tolist(), ratings.denominator_U.tolist()) == ([0.0, 5.0], [0.0, 2.0])
    assert users.totals("RS", "a").before_numerator_U.tolist() == [5.0]


def test_bad_events_are_left_out_and_counted(write_events):
    bad = [("u9", "a", 1, -1, 0, 0.0, None), ("u9", "a", 1, 1, 0, float("nan"), None), ("u9", "a", 1, 1, -2, 0.0, None)]
    users = read_users(write_events(EVENTS + bad), START)
    assert (users.num_events, users.num_bad, len(users.arm_U)) == (12, 3, 3)
    with pytest.raises(InputError, match="no event to analyse \\(3 rows, 3 of them bad\\)"):
        read_users(write_events(bad, "bad"), START)


def test_events_without_an_arm_or_without_an_experiment_are_named(write_events):
    with pytest.raises(InputError, match="at or after 2026-11-10 00:00 has no arm"):
        read_users(write_events([*EVENTS, ("u6", None, 1, 1, 0, 0.0, None)]), START)
    with pytest.raises(InputError, match="no user has events of exactly one arm"):
        read_users(write_events([EVENTS[2], EVENTS[8]], "past"), START)
