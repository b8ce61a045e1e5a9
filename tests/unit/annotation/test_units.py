from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylib import tables
from raylib.annotation.requests import UnitStats
from raylib.annotation.units import Plan, Unit, done_units, plan_units, read_unit, unit_stats, write_unit
from raylib.errors import InputError


def write_table(path: Path, splits: list[str], rows_per_file: int, row_group_size: int) -> str:
    rows = [
        {
            "pair_id": f"{i:04d}",
            "bucket": 0,
            "query": "q",
            "item_id": str(i),
            "title": "t",
            "locale": "en",
            "impressions": 0,
            "clicks": 0,
            "split": split,
        }
        for i, split in enumerate(splits)
    ]
    path.mkdir()
    for start in range(0, len(rows), rows_per_file):
        batch = tables.rows_batch(rows[start : start + rows_per_file], tables.PAIRS)
        table = tables.pa.Table.from_batches([batch])
        pq.write_table(table, path / f"part-{start:05d}.parquet", row_group_size=row_group_size)
    return str(path)


def units(plan: Plan) -> list[Unit]:
    return [plan.unit(index) for index in range(plan.num_units)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    splits = [("train", "dev", "train", "test", "train")[i % 5] for i in range(103)]
    return write_table(tmp_path_factory.mktemp("t") / "pairs", splits, rows_per_file=17, row_group_size=5)


@settings(deadline=None)
@given(
    splits=st.sets(st.sampled_from(["train", "dev", "test"]), min_size=1),
    max_pairs=st.none() | st.integers(1, 120),
    pairs_per_unit=st.integers(1, 40),
)
def test_units_cover_each_selected_pair_once_and_in_order(
    pairs: str, splits: set[str], max_pairs: int | None, pairs_per_unit: int
) -> None:
    plan = plan_units(pairs, sorted(splits), max_pairs, pairs_per_unit)
    read = [read_unit(plan, unit) for unit in units(plan)]
    found = [row["pair_id"] for rows in read for row in rows]
    table = tables.read_table(pairs, tables.PAIRS, ["pair_id", "split"]).to_pylist()
    wanted = [row["pair_id"] for row in table if row["split"] in splits]
    assert len(found) == min(len(wanted), max_pairs or len(wanted))
    assert found == [pair_id for pair_id in wanted if pair_id in set(found)]
    assert plan.num_pairs == len(found)
    assert plan.num_units <= len(found) / pairs_per_unit * 2 + 1


def test_a_smaller_subset_lies_within_a_larger_one(pairs: str) -> None:
    def selected(max_pairs: int) -> set[str]:
        plan = plan_units(pairs, ["train"], max_pairs, 10)
        return {row["pair_id"] for unit in units(plan) for row in read_unit(plan, unit)}

    assert selected(5) < selected(20) < selected(60)


def test_an_empty_selection_is_an_error(tmp_path: Path) -> None:
    only_train = write_table(tmp_path / "pairs", ["train"] * 3, 3, 3)
    with pytest.raises(InputError, match="no pair in split"):
        plan_units(only_train, ["test"], None, 2)


def test_a_unit_is_done_when_its_rows_are_written(pairs: str, tmp_path: Path) -> None:
    plan = plan_units(pairs, ["test"], None, 8)
    output = str(tmp_path / "out")
    assert done_units(output) == set()
    stats = UnitStats(num_pairs=8, rows_out=0, prompt_tokens=3)
    stats.rejected["too_long"] += 1
    row: dict[str, Any] = {
        "stage": "annotate", "reason": "too_long", "detail": "d", "payload": "{}", "attempt": 1,
    }  # fmt: skip
    write_unit(output, plan.unit(1), [], [row], stats.to_dict())
    (Path(output) / "_partial-unit-0000000.parquet").write_bytes(b"half")
    (Path(output) / "unit-0000000.parquet").write_bytes(b"")  # as a disk that lost its last writes may leave it
    assert done_units(output) == {1}
    written = unit_stats(output, 1)
    assert written is not None
    assert UnitStats.from_dict(written) == stats
    assert tables.read_table(output + "/rejected", tables.REJECTED).num_rows == 1


def test_a_file_without_its_content_has_no_counts(tmp_path: Path) -> None:
    (tmp_path / "unit-0000004.parquet").write_bytes(b"")
    assert unit_stats(str(tmp_path), 4) is None
