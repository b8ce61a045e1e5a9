"""The two tasks of the external shuffle: a map over one unit of rows, a reduce over one bucket.

A map task writes ONE file of record batches, each of one bucket, and an index: as many files as units, not units times
buckets, and a reduce task reads only its own batches. Memory is bounded by the batch (map) and the bucket (reduce). The
JSON beside each result is written last: it means that the result is complete, and carries its counts.
"""

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from raylib import tables
from raylib.errors import InputError
from raylib.labels import LabelSchema
from raylib.logs.pairs import by_bucket, combine, combine_stream, finish_bucket
from raylib.logs.rows import PARTIALS
from raylib.logs.source import BadFileError, Unit, read_unit
from raylib.logs.validate import validate

SPILL_ROWS = 262_144  # partials are combined and cut into buckets when so many have come together
SEQUENCE_STEP = 1 << 36  # rows of a unit are numbered from unit number * this


def map_unit(
    output: str,
    number: int,
    unit: Unit,
    schema: LabelSchema,
    num_buckets: int,
    max_query_chars: int,
    max_title_chars: int,
    on_bad_file: str,
) -> dict[str, Any]:
    """Validate, combine and spill one unit; returns and writes its counts and the bucket of each spilled batch.

    Raises BadFileError when the file is damaged and `on_bad_file` is `fail`, InputError when the disk is full.
    """
    pa.set_cpu_count(1)  # one core a task; Arrow would take all
    name = f"map-{number:05d}"
    rejected: Counter[str] = Counter()
    facts = {"num_rows": 0, "num_cleaned": 0, "num_rejected_files": 0}

    def partials() -> Iterator[pa.Table]:
        for rows in read_unit(unit):
            start = number * SEQUENCE_STEP + facts["num_rows"]
            result = validate(rows, schema, max_query_chars, max_title_chars, start)
            facts["num_rows"] += rows.num_rows
            facts["num_cleaned"] += result.num_cleaned
            if result.rejected:
                rejected.update(row["reason"] for row in result.rejected)
                _write_rejected(output, f"{name}-{facts['num_rejected_files']:04d}", result.rejected)
                facts["num_rejected_files"] += 1
            yield result.partials

    try:
        buckets = _write_spill(f"{output}/work/{name}.arrow", partials(), num_buckets)
    except BadFileError as error:
        for i in range(facts["num_rejected_files"]):
            _delete(f"{output}/rejected/{name}-{i:04d}.parquet")
        if on_bad_file != "skip":
            raise
        done = {"num_rows": unit.num_rows, "num_cleaned": 0, "rejected": {}, "bad_file": str(error), "buckets": []}
    else:
        done = {**facts, "rejected": dict(rejected), "bad_file": None, "buckets": buckets}
    write_done(output, name, done)
    return done


def reduce_bucket(
    output: str,
    bucket: int,
    batches: list[tuple[int, list[int]]],
    schema: LabelSchema,
    on_conflict: str,
    dev_share: float,
    test_share: float,
    seed: int,
) -> dict[str, Any]:
    """Write `bucket-NNNNN.parquet` of the pairs table; `batches` lists (unit number, numbers of its batches)."""
    pa.set_cpu_count(1)
    name = f"bucket-{bucket:05d}"
    partials = combine_stream(_read_spills(output, batches))
    result = finish_bucket(partials, bucket, schema.names, on_conflict, dev_share, test_share, seed)
    if result.rejected:
        _write_rejected(output, name, result.rejected)
    tables.write_parquet(f"{output}/{name}.parquet", tables.PAIRS, [result.pairs])
    done = {"rejected": dict(+result.rejected_rows), "facts": dict(result.facts)}
    write_done(output, name, done)
    return done


def read_done(output: str, name: str) -> dict[str, Any] | None:
    """The counts of a complete map output or bucket, None while it is not complete."""
    fs, path = tables.filesystem(f"{output}/work/{name}.json")
    if fs.get_file_info(path).type == pafs.FileType.NotFound:
        return None
    with fs.open_input_stream(path) as stream:
        done: dict[str, Any] = json.loads(stream.read())
    return done


def write_done(output: str, name: str, done: dict[str, Any]) -> None:
    """Write `work/NAME.json` atomically."""
    fs, path = tables.filesystem(f"{output}/work/{name}.json")
    partial = f"{path}.{uuid.uuid4().hex[:8]}"
    try:
        fs.create_dir(path.rpartition("/")[0], recursive=True)
        with fs.open_output_stream(partial) as stream:
            stream.write(json.dumps(done).encode())
        fs.move(partial, path)
    except OSError as error:
        raise _no_space(path, error) from None


def _write_spill(uri: str, partials: Iterator[pa.Table], num_buckets: int) -> list[int]:
    """Write batches of one bucket each; returns their buckets in file order."""
    fs, path = tables.filesystem(uri)
    partial = f"{path}.{uuid.uuid4().hex[:8]}"  # unique: a retried task may overlap the one it replaces
    buckets: list[int] = []
    try:
        fs.create_dir(path.rpartition("/")[0], recursive=True)
        with (
            fs.open_output_stream(partial) as stream,
            pa.ipc.new_file(stream, PARTIALS, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer,
        ):
            for chunk in _chunks(partials):
                for bucket, part in by_bucket(combine(chunk), num_buckets):
                    for batch in part.to_batches():
                        writer.write_batch(batch)
                        buckets.append(bucket)
        fs.move(partial, path)
    except OSError as error:
        raise _no_space(path, error) from None
    finally:
        if fs.get_file_info(partial).type != pafs.FileType.NotFound:
            fs.delete_file(partial)  # a full disk must not stay full of halves
    return buckets


def _chunks(partials: Iterator[pa.Table]) -> Iterator[pa.Table]:
    pending: list[pa.Table] = []
    for table in partials:
        pending.append(table)
        if sum(part.num_rows for part in pending) >= SPILL_ROWS:
            yield pa.concat_tables(pending)
            pending = []
    if pending:
        yield pa.concat_tables(pending)


def _read_spills(output: str, batches: list[tuple[int, list[int]]]) -> Iterator[pa.Table]:
    for number, positions in batches:
        fs, path = tables.filesystem(f"{output}/work/map-{number:05d}.arrow")
        with fs.open_input_file(path) as file:
            reader = pa.ipc.open_file(file)
            for position in positions:
                yield pa.table(reader.get_batch(position))


def _write_rejected(output: str, name: str, rows: list[dict[str, Any]]) -> None:
    batch = tables.rows_batch(rows, tables.REJECTED)
    tables.write_parquet(f"{output}/rejected/{name}.parquet", tables.REJECTED, [batch])


def _delete(uri: str) -> None:
    fs, path = tables.filesystem(uri)
    fs.delete_file(path)


def _no_space(path: str, error: OSError) -> InputError:
    return InputError(f"{path}: cannot write: {error}; free space or choose another output, then rerun")
