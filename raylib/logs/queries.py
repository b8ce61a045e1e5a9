"""What only all queries together can tell: their traffic, and which are near-identical across splits.

Two tasks between map and reduce: one lists the distinct queries of a bucket and hands out their neighbour keys by
partition, the other finds the keys of one partition at which queries of different splits meet.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raylib.logs import text
from raylib.logs.budget import Budget
from raylib.logs.pairs import by_bucket, resolve_splits
from raylib.logs.query_key import near_keys
from raylib.logs.spill import Parts, read_passes, write_done, write_parts

KEYS = pa.schema([("key", pa.uint64()), ("query_hash", pa.uint64()), ("split", pa.int8())])
NEAR = pa.schema(
    [
        ("query_hash", pa.uint64()),
        ("split", pa.int8()),
        ("other_hash", pa.uint64()),  # a near-identical query of the latest split (train < dev < test)
        ("other_split", pa.int8()),
    ]
)
COLUMNS = ("query_hash", "split", "impressions", "query")
SLICE_QUERIES = 16_384  # their neighbour keys are made together: about 10 MB
NUM_EXAMPLES = 20


def list_queries(
    output: str,
    bucket: int,
    parts: Parts,
    num_partitions: int,
    dev_share: float,
    test_share: float,
    seed: int,
    budget: Budget,
) -> dict[str, Any]:
    """Write the neighbour keys of a bucket's queries by partition; returns also the bucket's traffic.

    Traffic is `impressions` and `num_queries`: how many queries have how many.
    """
    pa.set_cpu_count(1)
    name = f"queries-{bucket:05d}"
    traffic: dict[int, int] = {}

    def keys() -> Iterator[tuple[int, pa.Table]]:
        for part in read_passes(output, parts, "query_hash", budget.pass_bytes, COLUMNS):
            queries = _distinct(part, budget.pass_bytes)
            for count, number in zip(*_histogram(queries), strict=True):
                traffic[count] = traffic.get(count, 0) + number
            for start in range(0, queries.num_rows, SLICE_QUERIES):
                made = _keys(queries.slice(start, SLICE_QUERIES), dev_share, test_share, seed)
                yield from by_bucket(made.column("key").to_numpy(), made, num_partitions)

    index = write_parts(output, name, KEYS, keys())
    done = {**index, "impressions": sorted(traffic), "num_queries": [traffic[count] for count in sorted(traffic)]}
    write_done(output, name, done)
    return done


def find_near(output: str, partition: int, parts: Parts, num_buckets: int, budget: Budget) -> dict[str, Any]:
    """Write the queries of a partition that are near-identical to one of a later split, by bucket; returns examples."""
    pa.set_cpu_count(1)
    examples: list[list[int]] = []

    def found() -> Iterator[tuple[int, pa.Table]]:
        for part in read_passes(output, parts, "key", budget.pass_bytes):
            near = meet(pa.concat_tables([KEYS.empty_table(), *part]))
            examples.extend(list(row.values()) for row in near.slice(0, NUM_EXAMPLES).to_pylist())
            yield from by_bucket(near.column("query_hash").to_numpy(), near, num_buckets)

    index = write_parts(output, f"near-{partition:05d}", NEAR, found())
    done = {**index, "examples": sorted(examples)[:NUM_EXAMPLES]}
    write_done(output, f"near-{partition:05d}", done)
    return done


def meet(keys: pa.Table) -> pa.Table:
    """Of KEYS, each query that shares a key with one of a later split, with the latest such (NEAR, sorted)."""
    key, query, split = (keys.column(name).to_numpy() for name in KEYS.names)
    order = np.lexsort((query, split, key))
    key, query, split = key[order], query[order], split[order]
    is_last = np.append(key[1:] != key[:-1], True)[: len(key)]
    last = np.flatnonzero(is_last)[np.cumsum(is_last) - is_last]  # of each row's key: the query of the latest split
    rows = np.flatnonzero((split < split[last]) & (query != query[last]))
    other_hash, other_split = query[last[rows]], split[last[rows]]
    order = np.lexsort((other_hash, -other_split, split[rows], query[rows]))
    rows, other_hash, other_split = rows[order], other_hash[order], other_split[order]
    is_new = np.append(True, np.diff(query[rows]) != 0)[: len(rows)]
    columns = [query[rows][is_new], split[rows][is_new], other_hash[is_new], other_split[is_new]]
    return pa.table([pa.array(column) for column in columns], schema=NEAR)


def _distinct(batches: Iterator[pa.Table], limit_bytes: int) -> pa.Table:
    """Distinct (query_hash, published split, query) with their impressions added up."""
    keys = ["query_hash", "split", "query"]
    schema = pa.schema([("query_hash", pa.uint64()), ("split", pa.int8()), ("query", pa.string())])
    combined = schema.append(pa.field("impressions", pa.int64())).empty_table()

    def add(tables: list[pa.Table]) -> pa.Table:
        grouped = pa.concat_tables(tables).group_by(keys, use_threads=False).aggregate([("impressions", "sum")])
        return grouped.select([*keys, "impressions_sum"]).rename_columns(combined.schema.names)

    pending, num_bytes = [combined], 0
    for batch in batches:
        pending.append(batch.select(combined.schema.names).cast(combined.schema))
        num_bytes += batch.nbytes
        if num_bytes >= limit_bytes:
            pending, num_bytes = [add(pending)], 0
    return add(pending)


def _histogram(queries: pa.Table) -> tuple[list[int], list[int]]:
    _, inverse = np.unique(queries.column("query_hash").to_numpy(), return_inverse=True)
    sums = np.zeros(inverse.max(initial=-1) + 1, dtype=np.int64)
    np.add.at(sums, inverse, queries.column("impressions").to_numpy())
    counts, numbers = np.unique(sums, return_counts=True)
    return counts.tolist(), numbers.tolist()


def _keys(queries: pa.Table, dev_share: float, test_share: float, seed: int) -> pa.Table:
    """KEYS of distinct queries, each once however many spellings of a query share it."""
    query_hash: npt.NDArray[np.uint64] = queries.column("query_hash").to_numpy()
    split = resolve_splits(query_hash, queries.column("split").to_numpy(), dev_share, test_share, seed)
    query_K, key_K = near_keys(queries.column("query").combine_chunks())
    made: tuple[text.Hashes, text.Hashes, npt.NDArray[np.int8]] = (key_K, query_hash[query_K], split[query_K])
    order = np.lexsort(made)
    key, query, split_K = (column[order] for column in made)
    is_new = np.append(True, (key[1:] != key[:-1]) | (query[1:] != query[:-1]) | (split_K[1:] != split_K[:-1]))
    return pa.table([pa.array(column[is_new[: len(key)]]) for column in (key, query, split_K)], schema=KEYS)
