from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylib.logs import text
from raylib.logs.pairs import (
    NO_TRAFFIC,
    Near,
    Pairs,
    bucket_of,
    by_bucket,
    combine,
    combine_stream,
    finish_bucket,
    split_of,
    traffic_bounds,
)
from raylib.logs.query_key import canonical, query_hashes
from raylib.logs.rows import PARTIALS
from raylib.tables import PAIRS, SEGMENTS, SPLITS

NAMES = ("Exact", "Substitute", "Irrelevant")
TRAIN, DEV, TEST = range(3)


def partial(query: str = "q", item: str = "i", gold: int = -1, split: int = -1, **changes: Any) -> dict[str, Any]:
    query_hash = query_hashes(pa.array([query]))
    pair = text.mix(text.hash_texts([query]), text.hash_texts([item]))
    return {
        "pair": int(pair[0]),
        "query_hash": int(query_hash[0]),
        "gold": gold,
        "split": split,
        "sequence": 0,
        "num_rows": 1,
        "impressions": 1,
        "clicks": 0,
        "query": query,
        "locale": "en",
        "item_id": item,
        "title": "t",
        "brand": None,
        "category": None,
        "attributes": None,
    } | changes


def table(rows: list[dict[str, Any]]) -> pa.Table:
    numbered = [row | {"sequence": i} for i, row in enumerate(rows)]
    return pa.Table.from_pylist(numbered, schema=PARTIALS)


def finish(rows: list[dict[str, Any]], on_conflict: str = "majority", dev: float = 0.0, test: float = 0.0) -> Pairs:
    return finish_bucket(combine(table(rows)), 7, NAMES, on_conflict, dev, test, seed=0)


def golds(result: Pairs) -> dict[str, str | None]:
    return {row["item_id"]: row["gold"] for row in result.pairs.to_pylist()}


def test_rows_of_a_pair_add_up_and_the_newest_text_stays() -> None:
    rows = [partial(title="old", clicks=1), partial(item="other"), partial(title="new", impressions=5, gold=1)]
    result = finish([*rows, partial(title="newest", gold=-1)])
    (pair,) = [row for row in result.pairs.to_pylist() if row["item_id"] == "i"]
    assert (pair["impressions"], pair["clicks"], pair["title"], pair["gold"]) == (7, 1, "newest", "Substitute")
    assert pair["bucket"] == 7
    assert result.facts["log_rows"] == 4
    assert result.facts["num_pairs"] == 2
    assert result.facts["num_judged_pairs"] == 1


@pytest.mark.parametrize(
    ("votes", "majority"),
    [
        ([0], "Exact"),
        ([0, 0, 1], "Exact"),
        ([-1, -1, -1, 1], "Substitute"),  # unjudged rows do not vote
        ([2, 1, 2, 0], "Irrelevant"),
        ([0, 1], "conflicting_gold"),  # no majority
        ([0, 1, 2, 0, 1], "conflicting_gold"),
    ],
)
def test_contradicting_gold(votes: list[int], majority: str) -> None:
    rows = [partial(gold=vote) for vote in votes] + [partial(item="sane", gold=2)]
    has_conflict = len({vote for vote in votes if vote >= 0}) > 1
    for on_conflict in ("majority", "reject"):
        result = finish(rows, on_conflict)
        is_kept = not has_conflict or (on_conflict == "majority" and majority in NAMES)
        assert golds(result) == ({"i": majority, "sane": "Irrelevant"} if is_kept else {"sane": "Irrelevant"})
        assert result.facts["num_conflicting_pairs"] == int(has_conflict)
        assert result.rejected_rows["conflicting_gold"] == (0 if is_kept else len(votes))
        assert result.facts["log_rows"] + result.rejected_rows.total() == len(rows)
        assert bool(result.rejected) != is_kept


def test_published_test_queries_never_train() -> None:
    rows = [
        partial("Red Shoes", "a", split=TEST),
        partial("red  shoes", "b", split=TRAIN),
        partial("ＲＥＤ SHOES", "c", split=DEV),
        partial("blue shoes", "d", split=TRAIN),
    ]
    result = finish(rows, dev=0.5, test=0.4)
    assert {row["item_id"] for row in result.pairs.to_pylist() if row["split"] == "test"} == {"a"}
    assert result.rejected_rows["query_in_test"] == 2
    assert {row["reason"] for row in result.rejected} == {"query_in_test"}


def test_dev_is_drawn_from_published_train_queries_only() -> None:
    rows = [partial(f"q{i}", split=TRAIN if i % 2 else TEST) for i in range(2000)]
    splits = Counter(finish(rows, dev=0.2, test=0.3).pairs.column("split").to_pylist())
    assert splits["test"] == 1000
    assert 150 < splits["dev"] < 250


@given(st.integers(0, 2**63 - 1))
@settings(max_examples=20, deadline=None)
def test_shares_of_the_split(seed: int) -> None:
    query_hash = text.hash_texts([f"query {i}" for i in range(20_000)])
    shares = np.bincount(split_of(query_hash, 0.1, 0.25, seed), minlength=3) / 20_000
    assert np.allclose(shares, [0.65, 0.1, 0.25], atol=0.02)
    in_bucket = bucket_of(query_hash, 8) == 3
    assert np.isclose((split_of(query_hash[in_bucket], 0.1, 0.25, seed) == TEST).mean(), 0.25, atol=0.05)


def test_a_larger_test_share_keeps_the_smaller_ones_queries() -> None:
    query_hash = text.hash_texts([f"query {i}" for i in range(1000)])
    small, large = (split_of(query_hash, 0.0, share, seed=3) == TEST for share in (0.1, 0.2))
    assert (large | ~small).all()


ROWS = st.lists(
    st.builds(
        partial,
        query=st.sampled_from(["red shoes", "RED shoes", "blue", "靴"]),
        item=st.sampled_from(["a", "b", "c"]),
        gold=st.integers(-1, 2),
        split=st.sampled_from([-1, -1, TRAIN, TEST]),
        clicks=st.integers(0, 3),
        title=st.sampled_from(["t1", "t2"]),
    ),
    min_size=1,
    max_size=30,
)


@given(ROWS, st.integers(1, 7), st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_equals_a_plain_reference_and_no_batching_matters(rows: list[dict[str, Any]], size: int, limit: int) -> None:
    numbered = table(rows)
    batches = [combine(numbered.slice(start, size)) for start in range(0, len(rows), size)]
    for batch in (combine(numbered), combine_stream(batches, limit)):
        result = finish_bucket(batch, 0, NAMES, "majority", 0.3, 0.3, seed=1)
        assert result.pairs.schema.equals(PAIRS)
        found = {row["pair_id"]: row for row in result.pairs.to_pylist()}
        expected = reference(rows)
        assert found.keys() == expected.keys()
        for pair_id, values in expected.items():
            assert {name: found[pair_id][name] for name in values} == values
        assert result.facts["log_rows"] + result.rejected_rows.total() == len(rows)
        splits_by_query = defaultdict(set)
        for row in found.values():
            splits_by_query[canonical(row["query"])].add(row["split"])
        assert all(len(splits) == 1 for splits in splits_by_query.values()) or has_mixed_sources(rows)


def has_mixed_sources(rows: list[dict[str, Any]]) -> bool:
    """A query with a published and without a published split: no input has both."""
    kinds = defaultdict(set)
    for row in rows:
        kinds[row["query_hash"]].add(row["split"] >= 0)
    return any(len(kind) > 1 for kind in kinds.values())


def reference(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    in_test = {row["query_hash"] for row in rows if row["split"] == TEST}
    groups = defaultdict(list)
    for row in rows:
        draw = split_of(np.array([row["query_hash"]], dtype=np.uint64), 0.3, 0.0 if row["split"] == TRAIN else 0.3, 1)[
            0
        ]
        split = TEST if row["split"] == TEST else int(draw)
        if split == TEST or row["query_hash"] not in in_test:
            groups[row["pair"]].append(row | {"final": split})
    pairs = {}
    for pair, members in groups.items():
        votes = Counter(row["gold"] for row in members if row["gold"] >= 0).most_common()
        if len(votes) > 1 and votes[0][1] == votes[1][1]:
            continue
        newest = members[-1]
        pairs[f"{pair:016x}"] = {
            "impressions": sum(row["impressions"] for row in members),
            "clicks": sum(row["clicks"] for row in members),
            "title": newest["title"],
            "gold": NAMES[votes[0][0]] if votes else None,
            "split": SPLITS[newest["final"]],
        }
    return pairs


def test_buckets_hold_whole_queries_and_lose_nothing() -> None:
    rows = combine(table([partial(f"Query {i % 40}" if i % 2 else f"query {i % 40}", f"i{i}") for i in range(400)]))
    parts = dict(by_bucket(rows.column("query_hash").to_numpy(), rows, 8))
    assert sum(part.num_rows for part in parts.values()) == 400
    queries = [set(part.column("query_hash").to_pylist()) for part in parts.values()]
    assert sum(map(len, queries)) == len(set.union(*queries)) == 40


def test_combining_by_bucket_changes_the_order_only() -> None:
    rows = table([partial(f"query {i % 40}", f"i{i % 7}") for i in range(400)])
    plain, ordered = combine(rows), combine(rows, 8)
    assert (np.diff(bucket_of(ordered.column("query_hash").to_numpy(), 8)) >= 0).all()
    assert ordered.sort_by("pair").equals(plain.sort_by("pair"))


@pytest.mark.parametrize("on_near_query", ["reject", "count"])
def test_near_identical_queries_leave_the_earlier_split(on_near_query: str) -> None:
    rows = [partial(f"query {i}", split=-1) for i in range(300)]
    hashes = np.array([row["query_hash"] for row in rows], np.uint64)
    splits = split_of(hashes, 0.3, 0.3, seed=0)
    near = Near(hashes[:200], np.full(200, DEV, np.int8))
    result = finish_bucket(combine(table(rows)), 0, NAMES, "majority", 0.3, 0.3, 0, near, on_near_query)
    expected = {i for i in range(200) if splits[i] == TRAIN}
    kept = {int(row["query"].split()[1]) for row in result.pairs.to_pylist()}
    assert kept == set(range(300)) - (expected if on_near_query == "reject" else set())
    assert result.facts["num_near_queries"] == len(expected) > 50
    assert result.rejected_rows["near_identical_query"] == 300 - len(kept)


def test_a_published_split_keeps_its_near_identical_queries() -> None:
    row = partial("q", split=TRAIN)
    near = Near(np.array([row["query_hash"]], np.uint64), np.array([TEST], np.int8))
    result = finish_bucket(combine(table([row])), 0, NAMES, "majority", 0.0, 0.0, 0, near, "reject")
    assert (result.pairs.num_rows, result.facts["num_near_queries"]) == (1, 1)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40))
def test_segments_are_thirds_of_the_impressions(counts: list[int]) -> None:
    distinct, numbers = np.unique(counts, return_counts=True)
    head, torso = traffic_bounds(distinct, numbers)
    total, before = sum(counts), 0
    if not total:
        assert (head, torso) == (NO_TRAFFIC, NO_TRAFFIC)
        return
    begins = {}
    for count in sorted(counts, reverse=True):
        begins.setdefault(count, before)
        before += count
    expected = {count: min(begin * 3 // total, 2) for count, begin in begins.items() if count}
    assert {count: 0 if count >= head else 1 if count >= torso else 2 for count in expected} == expected


def test_a_pair_has_the_segment_of_its_query() -> None:
    rows = [partial("often", f"i{i}", impressions=40) for i in range(3)] + [
        partial("Seldom"),
        partial("never", impressions=0),
    ]
    rows += [partial("seldom", impressions=30)]
    result = finish_bucket(combine(table(rows)), 0, NAMES, "majority", 0, 0, 0, bounds=(100, 31))
    found = {row["query"]: row["segment"] for row in result.pairs.to_pylist()}
    assert found == {"often": "head", "Seldom": "torso", "seldom": "torso", "never": None}
    assert [result.facts[f"num_{name}"] for name in SEGMENTS] == [3, 2, 0]
