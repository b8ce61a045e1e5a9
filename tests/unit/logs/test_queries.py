from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylib.logs.budget import Budget
from raylib.logs.pairs import resolve_splits
from raylib.logs.queries import KEYS, find_near, list_queries, meet
from raylib.logs.query_key import canonical, near_keys, query_hashes
from raylib.logs.rows import PARTIALS
from raylib.logs.spill import index_parts, read_parts, write_parts

ENTRIES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12)), max_size=30)


@given(ENTRIES)
@settings(deadline=None)
def test_queries_of_different_splits_meet_at_a_key(entries: list[tuple[int, int]]) -> None:
    rows = [(key, query, query % 3) for key, query in entries]
    keys = pa.table([pa.array(column) for column in zip(*rows, strict=True)] or [[], [], []], names=KEYS.names)
    at_key = defaultdict(set)
    for key, query, split in rows:
        at_key[key].add((split, query))
    expected = {}
    for members in at_key.values():
        for split, query in members:
            if split < max(members)[0]:
                expected[query] = max(expected.get(query, 0), max(members)[0])
    found = meet(keys.cast(KEYS)).to_pylist()
    assert {row["query_hash"]: row["other_split"] for row in found} == expected
    assert len(found) == len(expected)
    assert all(row["other_split"] == row["other_hash"] % 3 for row in found)


@pytest.mark.parametrize("pass_bytes", [64 << 20, 2048])
def test_all_near_identical_queries_across_splits_are_found(tmp_path: Path, pass_bytes: int) -> None:
    """Two buckets, three partitions, one or many passes: the same as comparing each query with each other."""
    words = ["blender", "blnder", "blenders", "kettle", "ketle", "kettles", "camera", "camara", "cámara", "cameras"]
    queries = [f"{color} {word}" for word in words for color in ("red", "blue", "green", "pink", "black")]
    hashes, numbers = query_hashes(pa.array(queries)), list(range(len(queries)))
    made = {"pair": numbers, "query_hash": hashes, "query": queries, "impressions": numbers, "sequence": numbers}
    made |= {name: [-1] * len(queries) for name in ("gold", "split")}
    made |= {name: ["1"] * len(queries) for name in PARTIALS.names if name not in made}
    partials, budget = pa.table(made).select(PARTIALS.names).cast(PARTIALS), Budget(1, 1, pass_bytes)
    written = ((bucket, partials.filter(pa.array(hashes % 2 == bucket))) for bucket in (0, 1))
    parts = index_parts({"map-00000": write_parts(str(tmp_path), "map-00000", PARTIALS, written)}, 2)
    listed = {f"queries-{i:05d}": list_queries(str(tmp_path), i, parts[i], 3, 0.3, 0.3, 0, budget) for i in (0, 1)}
    keys = index_parts(listed, 3)
    near = {f"near-{i:05d}": find_near(str(tmp_path), i, keys[i], 2, budget) for i in range(3)}
    found = {}
    for bucket, of_bucket in enumerate(index_parts(near, 2)):
        for table in read_parts(str(tmp_path), of_bucket):
            for row in table.to_pylist():
                assert row["query_hash"] % 2 == bucket
                found[row["query_hash"]] = max(row["other_split"], found.get(row["query_hash"], 0))

    splits = resolve_splits(hashes, np.full(len(queries), -1, np.int8), 0.3, 0.3, 0)
    query_K, key_K = near_keys(pa.array(queries))
    own = [set(key_K[query_K == i].tolist()) for i in range(len(queries))]
    expected: dict[int, int] = {}
    for i, keys_i in enumerate(own):
        others = [int(splits[j]) for j, keys_j in enumerate(own) if keys_i & keys_j and splits[j] > splits[i]]
        if others:
            expected[int(hashes[i])] = max(others)
    assert found == expected
    assert len(expected) > 5

    impressions = defaultdict(int)
    for i, query in enumerate(queries):
        impressions[canonical(query)] += i
    counted: list[int] = []
    for done in listed.values():
        counted += np.repeat(done["impressions"], done["num_queries"]).tolist()
    assert sorted(counted) == sorted(impressions.values())
