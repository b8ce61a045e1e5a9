import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylib.annotation.progress import MAX_HISTORY, ErrorBudget, Progress, indices, load_progress, ranges
from raylib.annotation.requests import UnitStats
from raylib.annotation.units import Plan, Selection, write_unit
from raylib.errors import BudgetError

PLAN = Plan(("pairs.parquet",), (0,), 60, Selection(("train",), None), 60, 10)


def stats(rows_out: int, **rejected: int) -> UnitStats:
    found = UnitStats(num_pairs=10, rows_out=rows_out, generated_tokens=7 * rows_out)
    found.rejected.update(rejected)
    return found


def write(output: Path, index: int, found: UnitStats) -> None:
    write_unit(str(output), PLAN.unit(index), [], [], found.to_dict())


@given(st.sets(st.integers(0, 200)))
def test_ranges_hold_every_index_in_order(numbers: set[int]) -> None:
    found = ranges(numbers)
    assert indices(found) == numbers
    assert all(this[1] + 1 < following[0] for this, following in itertools.pairwise(found))


def test_a_restart_counts_what_was_stored_and_what_came_after(tmp_path: Path) -> None:
    progress = load_progress(str(tmp_path), PLAN, 2)
    assert not progress.done
    for index in (0, 1, 4):
        write(tmp_path, index, stats(19, truncated=1))
        progress.add(index, stats(19, truncated=1), ready_at_s=0.0)
    progress.save(str(tmp_path))
    write(tmp_path, 2, stats(20))
    resumed = load_progress(str(tmp_path), PLAN, 2)
    assert resumed.done == {0, 1, 2, 4}
    assert (resumed.total.num_pairs, resumed.total.rows_out, resumed.total.rejected["truncated"]) == (40, 77, 3)
    assert resumed.here.num_requests == 0


def test_stored_counts_of_units_that_are_gone_are_not_believed(tmp_path: Path) -> None:
    progress = load_progress(str(tmp_path), PLAN, 2)
    for index in (0, 1):
        write(tmp_path, index, stats(20))
        progress.add(index, stats(20), ready_at_s=0.0)
    progress.save(str(tmp_path))
    (tmp_path / "unit-0000001.parquet").unlink()
    resumed = load_progress(str(tmp_path), PLAN, 2)
    assert resumed.done == {0}
    assert resumed.total.rows_out == 20


@pytest.mark.parametrize("content", [b"", b"PAR1 half a file"])
def test_a_unit_whose_file_is_broken_is_not_done(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, 0, stats(20))
    (tmp_path / "unit-0000003.parquet").write_bytes(content)
    assert load_progress(str(tmp_path), PLAN, 2).done == {0}


def test_the_budget_ends_a_run_by_reason_once_enough_is_known() -> None:
    budget = ErrorBudget({"truncated": 0.1, "engine": 0.0}, min_requests=40)
    progress = Progress(PLAN, 2)
    progress.add(0, stats(15, truncated=5), 0.0)
    progress.check(budget)
    progress.add(1, stats(20), 0.0)
    with pytest.raises(BudgetError, match=r"of 40 requests.*truncated 5 \(12\.5%, allowed 10\.0%\)"):
        progress.check(budget)
    progress.add(2, stats(20), 0.0)
    progress.check(budget)
    progress.add(3, stats(19, engine=1), 0.0)
    with pytest.raises(BudgetError, match="engine 1"):
        progress.check(budget)


def test_the_line_tells_what_is_done_lost_and_left() -> None:
    progress = Progress(PLAN, 2)
    assert "0/60 pairs, 0/6 units" in progress.line()
    assert "ETA -" in progress.line()
    progress.add(0, stats(18, truncated=2), ready_at_s=progress.started_s - 10.0)
    progress.open_requests = 5
    line = progress.line()
    assert "12/60 pairs, 1/6 units" in line
    assert "rejected: truncated 2" in line


def test_history_keeps_its_ends_and_stays_small() -> None:
    progress = Progress(PLAN, 2)
    for _ in range(5 * MAX_HISTORY):
        progress.note_history()
    assert MAX_HISTORY // 2 <= len(progress.history) <= MAX_HISTORY
    assert progress.history == sorted(progress.history)
