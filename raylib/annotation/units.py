"""Units of annotation work: contiguous row ranges of the pairs table, each of which becomes one output file.

A unit's file appears under its name only when all of its rows are written, so the files that exist say what is done:
a restart does the rest, and no row is written twice. The plan follows from the table and the settings alone.
"""

import hashlib
import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from raylib import tables
from raylib.errors import InputError

STATS_KEY = b"tricot.unit"
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
    """Rows [start, stop) of the table, counted over its files in order; `num_pairs` of them are selected."""

    index: int
    start: int
    stop: int
    num_pairs: int

    @property
    def name(self) -> str:
        """Name of the unit's files."""
        return f"unit-{self.index:05d}"


@dataclass(frozen=True)
class Plan:
    """All units of a run, and what is needed to read one."""

    files: tuple[str, ...]
    first_rows: tuple[int, ...]  # position in the table of each file's first row
    selection: Selection
    units: tuple[Unit, ...]

    @property
    def num_pairs(self) -> int:
        """Selected pairs."""
        return sum(unit.num_pairs for unit in self.units)


def absolute_uri(uri: str) -> str:
    """A local path made absolute, since Ray's workers have another working directory; a URI as it is."""
    return uri if "://" in uri else str(Path(uri).absolute())


def pair_hash(pair_id: str) -> int:
    """A 64-bit hash by which subsets are drawn; a smaller subset lies within every larger one."""
    return int.from_bytes(hashlib.blake2b(pair_id.encode(), digest_size=8).digest())


def plan_units(pairs_uri: str, splits: Sequence[str], max_pairs: int | None, pairs_per_unit: int) -> Plan:
    """Cut the selected pairs of a table into units of `pairs_per_unit`.

    Reads two columns; memory is that of `max_pairs` integers. Raises InputError when nothing is selected.
    """
    pairs_uri = absolute_uri(pairs_uri)
    files = tables.list_parquet(pairs_uri)
    selection = Selection(tuple(splits), _cutoff(pairs_uri, splits, max_pairs))
    first_rows, position = [], 0
    for file in files:
        first_rows.append(position)
        position += tables.open_parquet(file).metadata.num_rows
    units: list[Unit] = []
    start = row = count = 0
    for pair_id, split in _ids(pairs_uri):
        row += 1
        count += selection.keeps(pair_id, split)
        if count == pairs_per_unit:
            units.append(Unit(len(units), start, row, count))
            start, count = row, 0
    if count:
        units.append(Unit(len(units), start, row, count))
    if not units:
        raise InputError(f"{pairs_uri}: no pair in split(s) {', '.join(splits)} among {row} rows; nothing to annotate")
    return Plan(tuple(files), tuple(first_rows), selection, tuple(units))


def read_unit(plan: Plan, unit: Unit) -> list[dict[str, Any]]:
    """The selected pairs of a unit, in table order; opens only the files and row groups that hold them."""
    rows: list[dict[str, Any]] = []
    for file, first_row in zip(plan.files, plan.first_rows, strict=True):
        if first_row >= unit.stop:
            break
        rows += _read_range(file, unit.start - first_row, unit.stop - first_row)
    return [row for row in rows if plan.selection.keeps(row["pair_id"], row["split"])]


def write_unit(
    output: str, unit: Unit, rows: list[dict[str, Any]], rejected: list[dict[str, Any]], stats: dict[str, Any]
) -> None:
    """Write a unit's rejects, then its rows with `stats` in the footer; the second file is what makes the unit done."""
    if rejected:
        batch = tables.rows_batch(rejected, tables.REJECTED)
        tables.write_parquet(f"{output}/rejected/{unit.name}.parquet", tables.REJECTED, [batch])
    schema = tables.RATIONALES.with_metadata({STATS_KEY: json.dumps(stats).encode()})
    batch = tables.rows_batch(rows, tables.RATIONALES)
    tables.write_parquet(f"{output}/{unit.name}.parquet", schema, [batch])


def unit_stats(output: str, unit: Unit) -> dict[str, Any]:
    """What `write_unit` was given, from the footer of a finished unit's file."""
    file = tables.open_parquet(f"{output}/{unit.name}.parquet")
    stats: dict[str, Any] = json.loads(file.schema_arrow.metadata[STATS_KEY])
    return stats


def done_units(output: str, plan: Plan) -> set[int]:
    """Indices of the units whose file exists."""
    fs, path = tables.filesystem(output)
    names = {file.base_name for file in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))}
    return {unit.index for unit in plan.units if f"{unit.name}.parquet" in names}


def _ids(pairs_uri: str) -> Iterator[tuple[str, str]]:
    for batch in tables.read_batches(pairs_uri, tables.PAIRS, ["pair_id", "split"]):
        yield from zip(batch.column("pair_id").to_pylist(), batch.column("split").to_pylist(), strict=True)


def _cutoff(pairs_uri: str, splits: Sequence[str], max_pairs: int | None) -> int | None:
    """The `max_pairs`-th smallest hash among the pairs of `splits`."""
    if max_pairs is None:
        return None
    smallest = heapq.nsmallest(max_pairs, (pair_hash(pair_id) for pair_id, split in _ids(pairs_uri) if split in splits))
    return smallest[-1] if smallest else None


def _read_range(file: str, start: int, stop: int) -> list[dict[str, Any]]:
    """Rows [start, stop) of one file, where the bounds may lie outside of it."""
    parquet = tables.open_parquet(file)
    if stop <= 0 or start >= parquet.metadata.num_rows:
        return []
    found: list[pa.Table] = []
    first = 0
    for group in range(parquet.num_row_groups):
        num_rows = parquet.metadata.row_group(group).num_rows
        if first < stop and first + num_rows > start:
            low, high = max(start - first, 0), min(stop - first, num_rows)
            found.append(parquet.read_row_group(group, columns=list(PAIR_COLUMNS)).slice(low, high - low))
        first += num_rows
    rows: list[dict[str, Any]] = pa.concat_tables(found).to_pylist()
    return rows
