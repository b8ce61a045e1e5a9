"""The shuffle's map task, and the files through which tasks hand rows to each other.

A task writes ONE file of record batches, each of one bucket, and an index: as many files as tasks, not tasks times
buckets, and the next task reads only its own batches. The JSON beside each result is written last: it means that the
result is complete, and carries its counts. Memory is bounded by `Budget`: what a bucket holds beyond it is read in
several passes, each over a range of hashes.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from raylib import tables
from raylib.labels import LabelSchema
from raylib.logs.budget import Budget, num_passes
from raylib.logs.pairs import by_bucket, combine
from raylib.logs.rows import PARTIALS
from raylib.logs.source import BadFileError, Unit, read_unit
from raylib.logs.validate import validate

SEQUENCE_STEP = 1 << 36  # rows of a unit are numbered from unit number * this
Parts = list[tuple[str, list[int], int]]  # of one bucket: file name, numbers of its batches, their bytes


def map_unit(
    output: str,
    number: int,
    unit: Unit,
    schema: LabelSchema,
    num_buckets: int,
    max_query_chars: int,
    max_title_chars: int,
    on_bad_file: str,
    budget: Budget,
) -> dict[str, Any]:
    """Validate, combine and spill one unit; returns and writes its counts and the bucket of each spilled batch.

    Raises BadFileError when the file is damaged and `on_bad_file` is `fail`, InputError when the disk is full.
    """
    pa.set_cpu_count(1)  # one core a task; Arrow would take all
    name = f"map-{number:05d}"
    rejected: Counter[str] = Counter()
    facts = {"num_rows": 0, "num_cleaned": 0, "num_rejected_files": 0}

    def partials() -> Iterator[pa.Table]:
        for rows in read_unit(unit, budget.batch_bytes):
            start = number * SEQUENCE_STEP + facts["num_rows"]
            result = validate(rows, schema, max_query_chars, max_title_chars, start)
            facts["num_rows"] += rows.num_rows
            facts["num_cleaned"] += result.num_cleaned
            if result.rejected:
                rejected.update(row["reason"] for row in result.rejected)
                write_rejected(output, f"{name}-{facts['num_rejected_files']:04d}", result.rejected)
                facts["num_rejected_files"] += 1
            yield result.partials

    def parts() -> Iterator[tuple[int, pa.Table]]:
        for chunk in _chunks(partials(), budget.spill_bytes):
            combined = combine(chunk, num_buckets)
            yield from by_bucket(combined.column("query_hash").to_numpy(), combined, num_buckets)

    try:
        index = write_parts(output, name, PARTIALS, parts())
    except BadFileError as error:
        for i in range(facts["num_rejected_files"]):
            tables.delete(f"{output}/rejected/{name}-{i:04d}.parquet")
        if on_bad_file != "skip":
            raise
        done = {"num_rows": unit.num_rows, "num_cleaned": 0, "rejected": {}, "bad_file": str(error)}
        done |= {"buckets": [], "bytes": []}
    else:
        done = {**facts, "rejected": dict(rejected), "bad_file": None, **index}
    write_done(output, name, done)
    return done


def _chunks(partials: Iterator[pa.Table], limit_bytes: int) -> Iterator[pa.Table]:
    pending: list[pa.Table] = []
    for table in partials:
        pending.append(table)
        if sum(part.nbytes for part in pending) >= limit_bytes:
            yield pa.concat_tables(pending)
            pending = []
    if pending:
        yield pa.concat_tables(pending)


def write_parts(
    output: str, name: str, schema: pa.Schema, parts: Iterator[tuple[int, pa.Table]]
) -> dict[str, list[int]]:
    """Write `shuffle/NAME.arrow`, batches of one bucket each; returns the `buckets` and the `bytes` of its batches."""
    buckets, sizes = [], []
    with (
        tables.writing(f"{output}/shuffle/{name}.arrow") as stream,
        pa.ipc.new_file(stream, schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer,
    ):
        for bucket, part in parts:
            for batch in part.to_batches():
                writer.write_batch(batch)
                buckets.append(bucket)
                sizes.append(batch.nbytes)
    return {"buckets": buckets, "bytes": sizes}


def index_parts(done: dict[str, dict[str, Any]], num_buckets: int) -> list[Parts]:
    """The parts of each bucket among the results of tasks, by name."""
    parts: list[Parts] = [[] for _ in range(num_buckets)]
    for name, result in done.items():
        positions: dict[int, list[int]] = {}
        sizes: Counter[int] = Counter()
        for position, (bucket, size) in enumerate(zip(result["buckets"], result["bytes"], strict=True)):
            positions.setdefault(bucket, []).append(position)
            sizes[bucket] += size
        for bucket, of_bucket in positions.items():
            parts[bucket].append((name, of_bucket, sizes[bucket]))
    return parts


def read_passes(
    output: str, parts: Parts, hashed: str, pass_bytes: int, columns: Sequence[str] | None = None
) -> Iterator[Iterator[pa.Table]]:
    """Read a bucket in passes of about `pass_bytes`, each with the rows of one range of the column `hashed`.

    Ranges ascend, so what is sorted by that column in each pass is sorted over all of them.
    """
    count = num_passes(sum(size for _, _, size in parts), pass_bytes)
    for i in range(count):
        tables_ = read_parts(output, parts, columns)
        yield tables_ if count == 1 else _in_range(tables_, hashed, i, count)


def _in_range(parts: Iterator[pa.Table], hashed: str, i: int, count: int) -> Iterator[pa.Table]:
    for table in parts:
        high = table.column(hashed).to_numpy() >> np.uint64(32)
        yield table.filter(pa.array((high * np.uint64(count)) >> np.uint64(32) == i))


def read_parts(output: str, parts: Parts, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Stream the batches of a bucket as they were written; `columns` come in the order of the file."""
    for name, positions, _ in parts:
        fs, path = tables.filesystem(f"{output}/shuffle/{name}.arrow")
        with fs.open_input_file(path) as file:
            reader = pa.ipc.open_file(file)
            if columns is not None:
                fields = [reader.schema.names.index(column) for column in columns]
                reader = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=fields))
            for position in positions:
                yield pa.table(reader.get_batch(position))


def read_done(output: str, name: str) -> dict[str, Any] | None:
    """The counts of a complete map output or bucket, None while it is not complete."""
    uri = f"{output}/shuffle/{name}.json"
    if not tables.exists(uri):
        return None
    done: dict[str, Any] = json.loads(tables.read_text(uri))
    return done


def write_done(output: str, name: str, done: dict[str, Any]) -> None:
    """Write `shuffle/NAME.json` atomically."""
    tables.write_text(f"{output}/shuffle/{name}.json", json.dumps(done))


def write_rejected(output: str, name: str, rows: list[dict[str, Any]]) -> None:
    """Write `rejected/NAME.parquet`."""
    batch = tables.rows_batch(rows, tables.REJECTED)
    tables.write_parquet(f"{output}/rejected/{name}.parquet", tables.REJECTED, [batch])
