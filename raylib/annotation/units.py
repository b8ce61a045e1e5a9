"""Units of annotation work: contiguous row ranges of the pairs table, each of which becomes one output file.

A unit's file appears under its name only when all of its rows are written, so the files that exist say what is done:
a restart does the rest, and no row is written twice. The plan follows from the table and the settings alone. It is
arithmetic over row counts and holds no list of ids or units: millions of pairs cost the driver what a hundred do.
"""

import bisect
import hashlib
import heapq
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from raylib import tables
from raylib.errors import InputError

STATS_KEY = b"tricot.unit"
UNIT_FILE = re.compile(r"unit-(\d+)\.parquet")
PAIR_COLUMNS = ("pair_id", "bucket", "query", "title", "brand", "category", "attributes", "locale", "split")


@dataclass(frozen=True)
class Selection:
    """Which pairs are annotated."""

    splits: tuple[str, ...]
    cutoff: int | None  # pairs whose hash is above it are left out; None keeps all

    def keeps(self, pair_id: str, split: str) -> bool:
        """True when the pair is annotated."""
        return split in self.splits and (self.cutoff is None or pair_hash(pair_id) <= self.cutoff)


@dataclass(frozen=True)
class Unit:
    """Rows [start, stop) of the table, counted over its files in order."""

    index: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Name of the unit's files."""
        return unit_name(self.index)


@dataclass(frozen=True)
class Plan:
    """All units of a run, and what is needed to read one."""

    files: tuple[str, ...]
    first_rows: tuple[int, ...]  # position in the table of each file's first row
    num_rows: int  # of the table
    selection: Selection
    num_pairs: int  # selected
    rows_per_unit: int

    @property
    def num_units(self) -> int:
        """Units; some may hold no selected pair."""
        return -(-self.num_rows // self.rows_per_unit)

    def unit(self, index: int) -> Unit:
        """The unit with this index, 0 <= index < num_units."""
        start = index * self.rows_per_unit
        return Unit(index, start, min(start + self.rows_per_unit, self.num_rows))


def unit_name(index: int) -> str:
    """Name of a unit's files, without a suffix."""
    return f"unit-{index:07d}"


def pair_hash(pair_id: str) -> int:
    """A 64-bit hash by which subsets are drawn; a smaller subset lies within every larger one."""
    return int.from_bytes(hashlib.blake2b(pair_id.encode(), digest_size=8).digest())


def plan_units(pairs_uri: str, splits: Sequence[str], max_pairs: int | None, pairs_per_unit: int) -> Plan:
    """Cut a table into units of about `pairs_per_unit` selected pairs (as many rows each, in the table's order).

    Reads one column in batches; with `max_pairs` two, and holds that many integers. Raises InputError when nothing is
    selected.
    """
    pairs_uri = tables.absolute_uri(pairs_uri)
    files = tables.list_parquet(pairs_uri)
    num_rows = [tables.open_parquet(file).metadata.num_rows for file in files]
    first_rows = tuple(itertools.accumulate(num_rows, initial=0))
    in_splits = _count_splits(pairs_uri, splits)
    if not in_splits:
        raise InputError(
            f"{pairs_uri}: no pair in split(s) {', '.join(splits)} among {first_rows[-1]} rows; nothing to annotate"
        )
    num_pairs = min(in_splits, max_pairs or in_splits)
    return Plan(
        files=tuple(files),
        first_rows=first_rows[:-1],
        num_rows=first_rows[-1],
        selection=Selection(tuple(splits), _cutoff(pairs_uri, splits, max_pairs) if num_pairs < in_splits else None),
        num_pairs=num_pairs,
        rows_per_unit=max(1, pairs_per_unit * first_rows[-1] // num_pairs),
    )


def read_unit(plan: Plan, unit: Unit) -> list[dict[str, Any]]:
    """The selected pairs of a unit, in table order; opens only the files and row groups that hold them."""
    rows: list[dict[str, Any]] = []
    first = bisect.bisect_right(plan.first_rows, unit.start) - 1
    last = bisect.bisect_left(plan.first_rows, unit.stop)
    for file, first_row in zip(plan.files[first:last], plan.first_rows[first:last], strict=True):
        rows += _read_range(file, unit.start - first_row, unit.stop - first_row)
    return [row for row in rows if plan.selection.keeps(row["pair_id"], row["split"])]


def write_unit(
    output: str, unit: Unit, rows: list[dict[str, Any]], rejected: list[dict[str, Any]], stats: dict[str, Any]
) -> None:
    """Write a unit's rejects, then its rows with `stats` in the footer; the second file is what makes the unit done.

    A replay takes rows out of the rejects, so there the order is the other one: what is in both files counts as a row.
    """
    if not stats["replay"]:
        _write_rejected(output, unit, rejected)
    schema = tables.RATIONALES.with_metadata({STATS_KEY: json.dumps(stats).encode()})
    batch = tables.rows_batch(rows, tables.RATIONALES)
    tables.write_parquet(f"{output}/{unit.name}.parquet", schema, [batch])
    if stats["replay"]:
        _write_rejected(output, unit, rejected)


def read_answers(output: str, index: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows and the rejects of a finished unit; a reject that has become a row is left out."""
    rows: list[dict[str, Any]] = tables.open_parquet(f"{output}/{unit_name(index)}.parquet").read().to_pylist()
    answered = {request_key(row) for row in rows}
    uri = f"{output}/rejected/{unit_name(index)}.parquet"
    found: list[dict[str, Any]] = tables.open_parquet(uri).read().to_pylist() if tables.exists(uri) else []
    return rows, [row for row in found if request_key(json.loads(row["payload"])) not in answered]


def request_key(row: Mapping[str, Any]) -> tuple[str, str, int]:
    """What names a request: pair_id, perspective, sample."""
    return row["pair_id"], row["perspective"], row["sample"]


def unit_stats(output: str, index: int) -> dict[str, Any] | None:
    """What `write_unit` was given, from the footer of a finished unit's file; None when the file cannot be read.

    A machine that lost power can leave a file under its final name without its content: such a unit is not done.
    """
    try:
        file = tables.open_parquet(f"{output}/{unit_name(index)}.parquet")
    except InputError:
        return None
    stats: dict[str, Any] = json.loads(file.schema_arrow.metadata[STATS_KEY])
    return stats


def done_units(output: str) -> set[int]:
    """Indices of the units whose file exists and, as far as its size tells, has content."""
    fs, path = tables.filesystem(output)
    files = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    found = (UNIT_FILE.fullmatch(file.base_name) for file in files if file.size)
    return {int(match[1]) for match in found if match}


def _write_rejected(output: str, unit: Unit, rejected: list[dict[str, Any]]) -> None:
    uri = f"{output}/rejected/{unit.name}.parquet"
    if rejected:
        tables.write_parquet(uri, tables.REJECTED, [tables.rows_batch(rejected, tables.REJECTED)])
    elif tables.exists(uri):
        tables.delete(uri)


def _count_splits(pairs_uri: str, splits: Sequence[str]) -> int:
    wanted = pa.array(splits, pa.string())
    batches = tables.read_batches(pairs_uri, tables.PAIRS, ["split"])
    return sum(pc.sum(pc.is_in(batch.column("split"), wanted)).as_py() or 0 for batch in batches)


def _cutoff(pairs_uri: str, splits: Sequence[str], max_pairs: int | None) -> int | None:
    """The `max_pairs`-th smallest hash among the pairs of `splits`."""
    if max_pairs is None:
        return None
    wanted = pa.array(splits, pa.string())
    ids = (
        pair_id
        for batch in tables.read_batches(pairs_uri, tables.PAIRS, ["pair_id", "split"])
        for pair_id in batch.column("pair_id").filter(pc.is_in(batch.column("split"), wanted)).to_pylist()
    )
    return heapq.nsmallest(max_pairs, map(pair_hash, ids))[-1]


def _read_range(file: str, start: int, stop: int) -> list[dict[str, Any]]:
    """Rows [start, stop) of one file, where the bounds may lie outside of it."""
    parquet = tables.open_parquet(file)
    found: list[pa.Table] = []
    first = 0
    for group in range(parquet.num_row_groups):
        num_rows = parquet.metadata.row_group(group).num_rows
        if first < stop and first + num_rows > start:
            low, high = max(start - first, 0), min(stop - first, num_rows)
            found.append(parquet.read_row_group(group, columns=list(PAIR_COLUMNS)).slice(low, high - low))
        first += num_rows
    rows: list[dict[str, Any]] = pa.concat_tables(found).to_pylist() if found else []  # a file may hold no rows
    return rows
