from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib import tables
from raylib.errors import InputError
from raylib.labels import LabelSchema
from raylib.logs import spill
from raylib.logs.budget import Budget
from raylib.logs.reduce import reduce_bucket
from raylib.logs.source import BadFileError, Unit, plan_logs
from raylib.logs.spill import index_parts, map_unit, read_done, read_parts

ESCI = LabelSchema.load("esci")
ROOMY, TIGHT = Budget(64 << 20, 64 << 20, 64 << 20), Budget(4096, 4096, 4096)


def logs(path: Path, num_rows: int) -> list[Unit]:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {
        "query": [f"query {i % 50}" for i in range(num_rows)],
        "locale": ["en"] * num_rows,
        "item_id": [f"i{i % 200}" for i in range(num_rows)],
        "title": ["t" if i % 10 else None for i in range(num_rows)],
        "impressions": [1] * num_rows,
        "clicks": [0] * num_rows,
    }
    pq.write_table(pa.table(table), path, row_group_size=300, compression="snappy")
    return plan_logs(str(path.parent), "fail").units


def mapped(output: Path, number: int, unit: Unit, **changes: Any) -> dict[str, Any]:
    settings = {"num_buckets": 4, "max_query_chars": 100, "max_title_chars": 100, "on_bad_file": "fail"}
    settings["budget"] = ROOMY
    return map_unit(str(output), number, unit, ESCI, **(settings | changes))


def reduced(output: Path, done: list[dict[str, Any]], budget: Budget = ROOMY) -> pa.Table:
    parts = index_parts({f"map-{i:05d}": one for i, one in enumerate(done)}, 4)
    settings = (ESCI, "majority", "reject", 0.1, 0.1, 0, budget)
    for bucket in range(4):
        reduce_bucket(str(output), bucket, parts[bucket], [], [], (60, 30), *settings)
    return tables.read_table(str(output), tables.PAIRS)


def test_no_row_is_lost_and_the_budget_does_not_matter(tmp_path: Path) -> None:
    logs(tmp_path / "logs/a.parquet", 1000)
    units = logs(tmp_path / "logs/b.parquet", 700)
    whole = reduced(tmp_path / "whole", [mapped(tmp_path / "whole", i, unit) for i, unit in enumerate(units)])
    done = [mapped(tmp_path / "small", i, unit, budget=TIGHT) for i, unit in enumerate(units)]
    assert len(done[0]["buckets"]) > 4
    assert sum(done[0]["bytes"]) > 4 * TIGHT.pass_bytes, "each bucket takes several passes"
    assert [one["num_rows"] for one in done] == [1000, 700]
    assert [one["rejected"] for one in done] == [{"null_title": 100}, {"null_title": 70}]
    assert reduced(tmp_path / "small", done, TIGHT).equals(whole)
    assert set(whole.column("segment").to_pylist()) == {"torso"}
    assert sum(whole.column("impressions").to_pylist()) == 1530
    assert tables.read_table(str(tmp_path / "small/rejected"), tables.REJECTED).num_rows == 170


def test_parts_are_read_by_column(tmp_path: Path) -> None:
    (unit,) = logs(tmp_path / "logs/a.parquet", 100)
    parts = index_parts({"map-00000": mapped(tmp_path, 0, unit)}, 4)
    found = [table for of_bucket in parts for table in read_parts(str(tmp_path), of_bucket, ("query", "num_rows"))]
    assert {frozenset(table.column_names) for table in found} == {frozenset({"query", "num_rows"})}
    assert sum(sum(table.column("num_rows").to_pylist()) for table in found) == 90


def test_the_done_mark_is_the_last_thing_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (unit,) = logs(tmp_path / "logs/a.parquet", 100)

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(spill, "write_done", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mapped(tmp_path / "out", 0, unit)
    assert read_done(str(tmp_path / "out"), "map-00000") is None
    monkeypatch.undo()
    mapped(tmp_path / "out", 0, unit)
    assert read_done(str(tmp_path / "out"), "map-00000") is not None


def test_a_file_damaged_further_in_is_skipped_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raylib.logs.source.BATCH_ROWS", 64)
    path = tmp_path / "logs/a.parquet"
    (unit,) = logs(path, 1000)
    content = bytearray(path.read_bytes())
    second = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content[second : second + 60] = b"\xff" * 60
    path.write_bytes(content)
    with pytest.raises(BadFileError, match=r"a\.parquet: damaged"):
        mapped(tmp_path / "fail", 0, unit)
    done = mapped(tmp_path / "skip", 0, unit, on_bad_file="skip")
    assert done["num_rows"] == 1000
    assert done["rejected"] == {}
    assert "a.parquet" in done["bad_file"]
    assert not list((tmp_path / "skip/rejected").glob("*")), "rows of a skipped file are counted once, as skipped"
    assert reduced(tmp_path / "skip", [done]).num_rows == 0


def test_a_full_disk_says_what_to_do(tmp_path: Path) -> None:
    (unit,) = logs(tmp_path / "logs/a.parquet", 100)
    (tmp_path / "full").write_text("a file where a folder is needed fails like a disk that takes no more")
    with pytest.raises(InputError, match=r"cannot write: .*; free space or choose another output, then rerun"):
        mapped(tmp_path / "full", 0, unit)
