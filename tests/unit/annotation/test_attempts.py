from pathlib import Path

from raylib.annotation import attempts


def test_a_unit_over_which_engines_die_is_isolated(tmp_path: Path) -> None:
    begun = [attempts.begin(str(tmp_path), "unit-1", "driver") for _ in range(3)]
    assert [attempt.is_isolated for attempt in begun] == [False, False, True]


def test_deaths_under_another_driver_do_not_count(tmp_path: Path) -> None:
    for _ in range(3):
        attempts.begin(str(tmp_path), "unit-1", "first driver")
    assert not attempts.begin(str(tmp_path), "unit-1", "second driver").is_isolated


def test_a_pair_in_flight_at_several_deaths_is_hopeless_and_others_are_not(tmp_path: Path) -> None:
    for _ in range(attempts.DEATHS_OF_A_PAIR):
        attempt = attempts.begin(str(tmp_path), "unit-1", "driver")
        assert not attempt.is_hopeless("bad")
        attempt.deaths["bad"] = attempt.deaths.get("bad", 0) + 1
        attempts.write(str(tmp_path), "unit-1", attempt)
    attempt = attempts.begin(str(tmp_path), "unit-1", "driver")
    assert attempt.is_hopeless("bad")
    assert not attempt.is_hopeless("good")


def test_a_unit_that_is_done_is_forgotten(tmp_path: Path) -> None:
    attempts.begin(str(tmp_path), "unit-1", "driver")
    attempts.end(str(tmp_path), "unit-1")
    attempts.end(str(tmp_path), "unit-1")
    assert attempts.begin(str(tmp_path), "unit-1", "driver").begun == 1


def test_a_note_that_a_power_cut_emptied_is_as_none(tmp_path: Path) -> None:
    attempts.begin(str(tmp_path), "unit-1", "driver")
    (note,) = (tmp_path / "attempts").iterdir()
    note.write_text("")
    assert attempts.begin(str(tmp_path), "unit-1", "driver").begun == 1
