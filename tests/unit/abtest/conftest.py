from datetime import UTC, datetime

import pyarrow as pa
import pytest

from raylib import tables

START = datetime(2026, 11, 10, tzinfo=UTC)


@pytest.fixture
def write_events(tmp_path):
    """Write events given as (user, arm, day, impressions, clicks, revenue, rating), day 0 being the first one."""

    def write(rows, name="events"):
        names = ("user_id", "arm", "time", "impressions", "clicks", "revenue", "rating")
        moments = [(*row[:2], datetime(2026, 11, 10 + row[2], 12, tzinfo=UTC), *row[3:]) for row in rows]
        table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in moments], tables.EVENTS)
        for number in range(2):  # two files, so that a user's events are in both
            part = table.take(pa.array(range(number, len(table), 2)))
            tables.write_parquet(f"{tmp_path}/{name}/part-{number}.parquet", tables.EVENTS, part.to_batches())
        return f"{tmp_path}/{name}"

    return write
