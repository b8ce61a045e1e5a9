"""The shuffle's last task: one bucket of partial pairs -> one file of the pairs table."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from raylib import tables
from raylib.labels import LabelSchema
from raylib.logs.budget import Budget
from raylib.logs.pairs import Near, combine_stream, finish_bucket
from raylib.logs.spill import Parts, read_parts, read_passes, write_done, write_rejected


def reduce_bucket(
    output: str,
    bucket: int,
    parts: Parts,
    near_parts: Parts,
    wanted: list[int],
    bounds: tuple[int, int],
    schema: LabelSchema,
    on_conflict: str,
    on_near_query: str,
    dev_share: float,
    test_share: float,
    seed: int,
    budget: Budget,
) -> dict[str, Any]:
    """Write `bucket-NNNNN.parquet` of the pairs table; returns and writes its counts and the texts of `wanted` keys."""
    pa.set_cpu_count(1)
    name = f"bucket-{bucket:05d}"
    near = _read_near(output, near_parts)
    facts: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    texts: dict[str, str] = {}

    def pairs() -> Iterator[pa.Table]:
        for i, part in enumerate(read_passes(output, parts, "query_hash", budget.pass_bytes)):
            partials = combine_stream(part, budget.pass_bytes)
            for row in np.flatnonzero(np.isin(partials.column("query_hash").to_numpy(), np.array(wanted, np.uint64))):
                key = str(partials.column("query_hash")[row].as_py())
                query = partials.column("query")[row].as_py()
                texts[key] = min(query, texts.get(key, query))
            result = finish_bucket(
                partials, bucket, schema.names, on_conflict, dev_share, test_share, seed, near, on_near_query, bounds
            )
            if result.rejected:
                write_rejected(output, f"{name}-{i:04d}", result.rejected)
            facts.update(result.facts)
            rejected.update(result.rejected_rows)
            yield result.pairs

    tables.write_parquet(f"{output}/{name}.parquet", tables.PAIRS, pairs())
    done = {"rejected": dict(+rejected), "facts": dict(facts), "texts": texts}
    write_done(output, name, done)
    return done


def _read_near(output: str, parts: Parts) -> Near:
    """The near-identical queries of a bucket; one found by several partitions counts with its latest counterpart."""
    found = [table.select(["query_hash", "other_split"]) for table in read_parts(output, parts)]
    if not found:
        return Near(np.zeros(0, np.uint64), np.zeros(0, np.int8))
    grouped = pa.concat_tables(found).group_by("query_hash").aggregate([("other_split", "max")])
    return Near(grouped.column("query_hash").to_numpy(), grouped.column("other_split_max").to_numpy())
