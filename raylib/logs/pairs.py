"""Partial pairs -> unique pairs: adding up, the gold label, the split. Pure Arrow and NumPy."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raylib.logs import text
from raylib.logs.rows import PARTIALS
from raylib.tables import PAIRS, SEGMENTS, SPLITS

CONFLICT_REASONS = {
    "conflicting_gold": "the pair has contradicting gold labels (on_conflict: reject), or no majority among them",
    "query_in_test": "the pair is published as train or dev, but its query is also a test query",
    "near_identical_query": "the query is near-identical to one of a split that measures (on_near_query: reject)",
}


class Pairs(NamedTuple):
    """The pairs of one bucket."""

    pairs: pa.Table  # PAIRS
    rejected: list[dict[str, Any]]  # rows of tables.REJECTED, one a pair
    rejected_rows: Counter[str]  # log rows by reason
    facts: Counter[str]  # log_rows, and num_ of pairs, queries, judged and conflicting pairs, splits, segments


class Near(NamedTuple):
    """Queries of one bucket that are near-identical to a query of a later split (train < dev < test), each once."""

    query_hash: text.Hashes
    other_split: npt.NDArray[np.int8]  # the latest such split


NO_TRAFFIC = 2**62
NO_NEAR = Near(np.zeros(0, np.uint64), np.zeros(0, np.int8))


def combine(partials: pa.Table, num_buckets: int = 1) -> pa.Table:
    """Add up partials of the same pair, gold label and published split; texts come from the last row.

    Logs are numbered (`sequence`) in the order of their file names, which is the order of time in most archives, so the
    last row has the newest wording of a title. `partials` must be in that order for each pair. The result is in order
    of its buckets.
    """
    numbered = partials.append_column("row", pa.array(np.arange(partials.num_rows)))
    counts = ("num_rows", "impressions", "clicks")
    keys = ["pair", "gold", "split"]
    totals = [(n, "sum") for n in counts] + [("row", "max"), ("query_hash", "max")]
    grouped = numbered.select([*keys, *counts, "row", "query_hash"]).group_by(keys, use_threads=False).aggregate(totals)
    if num_buckets > 1:
        order = np.argsort(bucket_of(_numpy(grouped, "query_hash_max"), num_buckets), kind="stable")
        grouped = grouped.take(order)
    columns = {name: grouped.column(name) for name in keys} | {n: grouped.column(f"{n}_sum") for n in counts}
    rest = [name for name in PARTIALS.names if name not in columns]
    texts = partials.select(rest).take(grouped.column("row_max"))
    return pa.table({**columns, **{name: texts.column(name) for name in rest}}).select(PARTIALS.names).cast(PARTIALS)


def combine_stream(batches: Iterable[pa.Table], limit_bytes: int = 64 << 20) -> pa.Table:
    """Combine any number of partials while holding at most the distinct ones and `limit_bytes` more."""
    combined, pending, num_bytes = PARTIALS.empty_table(), [], 0
    for batch in batches:
        pending.append(batch)
        num_bytes += batch.nbytes
        if num_bytes >= limit_bytes:
            combined, pending, num_bytes = combine(pa.concat_tables([combined, *pending])), [], 0
    return combine(pa.concat_tables([combined, *pending])) if pending else combined


def by_bucket(hashes: text.Hashes, table: pa.Table, num_buckets: int) -> Iterator[tuple[int, pa.Table]]:
    """Cut a table into buckets, bucket = hash mod num_buckets; rows of a bucket keep their order."""
    buckets = bucket_of(hashes, num_buckets)
    if (np.diff(buckets) < 0).any():
        order = np.argsort(buckets, kind="stable")
        buckets, table = buckets[order], table.take(order)
    table = table.combine_chunks()
    edges = np.searchsorted(buckets, np.arange(num_buckets + 1))
    for bucket in np.flatnonzero(np.diff(edges)):
        yield int(bucket), table.slice(edges[bucket], edges[bucket + 1] - edges[bucket])


def bucket_of(query_hash: text.Hashes, num_buckets: int) -> npt.NDArray[np.int64]:
    """Bucket of each query."""
    return (query_hash % np.uint64(num_buckets)).astype(np.int64)


def split_of(query_hash: text.Hashes, dev_share: float, test_share: float, seed: int) -> npt.NDArray[np.int8]:
    """Position in SPLITS of each query: a uniform draw that depends on the query's letters and the seed only.

    The draw is mixed with the seed, so that it is independent of the bucket.
    """
    seeds = np.full(len(query_hash), seed, dtype=np.int64).astype(np.uint64)
    draw = text.mix(query_hash, seeds) / np.float64(2**64)
    test, dev = np.int8(SPLITS.index("test")), np.int8(SPLITS.index("dev"))
    return np.where(draw < test_share, test, np.where(draw < test_share + dev_share, dev, np.int8(0)))


def resolve_splits(
    query_hash: text.Hashes, published: npt.NDArray[np.int8], dev_share: float, test_share: float, seed: int
) -> npt.NDArray[np.int8]:
    """Position in SPLITS: the published split where there is one (>= 0), with dev drawn from its train; else a draw."""
    dev = split_of(query_hash, dev_share, 0.0, seed)
    drawn = split_of(query_hash, dev_share, test_share, seed)
    return np.where(published < 0, drawn, np.where(published == 0, dev, published)).astype(np.int8)


def traffic_bounds(impressions: npt.NDArray[np.int64], num_queries: npt.NDArray[np.int64]) -> tuple[int, int]:
    """Least impressions of a head and of a torso query, from how many queries have how many impressions.

    Counted from the most frequent query down, head, torso and tail are thirds of the impressions: a query belongs to
    the third in which it begins. Sources name the segments without a boundary; thirds are ours. Queries with equally
    many impressions belong together. There are at most sqrt(2 * all impressions) different counts, so this is small
    however many queries there are.
    """
    order = np.argsort(-impressions)
    impressions, weights = impressions[order], (impressions * num_queries)[order]
    before, total = np.cumsum(weights) - weights, int(weights.sum())
    head = impressions[(before * 3 < total) & (impressions > 0)]
    torso = impressions[(before * 3 < total * 2) & (impressions > 0)]
    return int(head.min(initial=NO_TRAFFIC)), int(torso.min(initial=NO_TRAFFIC))


def finish_bucket(
    partials: pa.Table,
    bucket: int,
    class_names: tuple[str, ...],
    on_conflict: str,
    dev_share: float,
    test_share: float,
    seed: int,
    near: Near = NO_NEAR,
    on_near_query: str = "reject",
    bounds: tuple[int, int] = (1, 1),
) -> Pairs:
    """Turn combined partials of a bucket, all of each query, into pairs.

    A published split wins over a drawn one. Where it is given, `dev` is drawn from the train queries and nothing is
    added to or taken from the published test pairs; its near-identical queries are kept. `bounds` are those of
    `traffic_bounds`.
    """
    order = np.lexsort((_numpy(partials, "sequence"), _numpy(partials, "pair"), _numpy(partials, "query_hash")))
    partials = partials.take(order)
    query_hash, published = _numpy(partials, "query_hash"), _numpy(partials, "split")
    is_published = published >= 0
    split = resolve_splits(query_hash, published, dev_share, test_share, seed)
    in_test = np.isin(query_hash, query_hash[is_published & (split == SPLITS.index("test"))])
    leaks = in_test & (split != SPLITS.index("test"))
    is_near = _is_near(query_hash, split, near) & ~leaks
    dropped = is_near & ~is_published if on_near_query == "reject" else np.zeros(len(split), dtype=bool)
    kept_rows = np.flatnonzero(~leaks & ~dropped)
    kept, kept_split = partials.take(kept_rows), split[kept_rows]
    segment = _segments(query_hash, _numpy(partials, "impressions"), bounds)[kept_rows]

    _, first, pair_index = np.unique(_numpy(kept, "pair"), return_index=True, return_inverse=True)
    num_pairs = len(first)
    newest = np.zeros(num_pairs, dtype=np.int64)
    newest[pair_index] = np.arange(len(pair_index))  # the last assignment stays, and rows are in order of time
    winner, has_conflict, has_majority = _votes(_numpy(kept, "gold"), _numpy(kept, "num_rows"), pair_index, num_pairs)
    undecided = has_conflict & (~has_majority if on_conflict == "majority" else True)
    totals = {n: _sums(kept, n, pair_index, num_pairs) for n in ("num_rows", "impressions", "clicks")}

    # Pairs in the order of the sorted partials: a query's pairs stand together.
    good = np.flatnonzero(~undecided)
    good = good[np.argsort(first[good])]
    rows = kept.take(newest[good])
    gold = pa.array(class_names, pa.string()).take(_nullable(winner[good]))
    pairs = pa.table(
        {
            "pair_id": text.hex_digits(_numpy(rows, "pair")),
            "bucket": np.full(len(good), bucket, dtype=np.int32),
            **{name: rows.column(name) for name in ("query", "item_id", "title", "brand", "category", "attributes")},
            "locale": rows.column("locale"),
            "impressions": totals["impressions"][good],
            "clicks": totals["clicks"][good],
            "gold": gold,
            "split": pa.array(SPLITS, pa.string()).take(pa.array(kept_split[newest[good]])),
            "segment": pa.array(SEGMENTS, pa.string()).take(_nullable(segment[newest[good]])),
        }
    ).cast(PAIRS)

    aside = {
        "query_in_test": partials.filter(pa.array(leaks)),
        "near_identical_query": partials.filter(pa.array(dropped)),
        "conflicting_gold": kept.filter(pa.array(undecided[pair_index])),
    }
    kept_segment = segment[newest[good]]
    facts = Counter(
        num_pairs=pairs.num_rows,
        num_queries=len(np.unique(_numpy(rows, "query_hash"))),
        num_judged_pairs=pairs.num_rows - gold.null_count,
        num_conflicting_pairs=int(has_conflict.sum()),
        num_near_queries=len(np.unique(query_hash[is_near])),
        log_rows=int(totals["num_rows"][good].sum()),
        **{f"num_{name}": int((kept_split[newest[good]] == i).sum()) for i, name in enumerate(SPLITS)},
        **{f"num_{name}": int((kept_segment == i).sum()) for i, name in enumerate(SEGMENTS)},
    )
    rejected = [row for reason, rows in aside.items() for row in _rejected(rows, reason, class_names)]
    rejected_rows = Counter({reason: pc.sum(rows.column("num_rows")).as_py() or 0 for reason, rows in aside.items()})
    return Pairs(pairs, rejected, rejected_rows, facts)


def _is_near(query_hash: text.Hashes, split: npt.NDArray[np.int8], near: Near) -> npt.NDArray[np.bool_]:
    """Which rows are of a query in `near` and of an earlier split than its counterpart."""
    if not len(near.query_hash):
        return np.zeros(len(query_hash), dtype=bool)
    order = np.argsort(near.query_hash)
    place = np.minimum(np.searchsorted(near.query_hash[order], query_hash), len(order) - 1)
    is_found = near.query_hash[order][place] == query_hash
    return is_found & (split < near.other_split[order][place])


def _segments(
    query_hash: text.Hashes, impressions: npt.NDArray[np.int64], bounds: tuple[int, int]
) -> npt.NDArray[np.int8]:
    """Position in SEGMENTS of each row by its query's impressions, -1 without any; rows of a query stand together."""
    starts = np.flatnonzero(np.append(True, np.diff(query_hash) != 0)[: len(query_hash)])
    sums = np.add.reduceat(impressions, starts) if len(starts) else impressions
    of_query = np.where(sums >= bounds[0], 0, np.where(sums >= bounds[1], 1, 2))
    of_query[sums == 0] = -1
    return np.repeat(of_query, np.diff(np.append(starts, len(query_hash)))).astype(np.int8)


def _nullable(codes: npt.NDArray[Any]) -> pa.Array:
    return pa.array(codes, mask=codes < 0)


def _votes(
    gold: npt.NDArray[np.int16], num_rows: npt.NDArray[np.int64], pair_index: npt.NDArray[np.intp], num_pairs: int
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Of each pair: the gold label with the most log rows (-1: none), whether labels contradict, whether one leads."""
    winner = np.full(num_pairs, -1, dtype=np.int16)
    has_conflict, has_majority = np.zeros(num_pairs, dtype=bool), np.ones(num_pairs, dtype=bool)
    judged = np.flatnonzero(gold >= 0)
    votes = np.zeros((0, 3), dtype=np.int64)
    if len(judged):
        keys = pair_index[judged].astype(np.int64) * (2**15) + gold[judged]  # the same label in two splits is one vote
        distinct, inverse = np.unique(keys, return_inverse=True)
        weights = np.bincount(inverse, weights=num_rows[judged]).astype(np.int64)
        votes = np.stack([distinct // 2**15, distinct % 2**15, weights], axis=1)
        votes = votes[np.lexsort((-votes[:, 2], votes[:, 0]))]
    is_first = np.append(True, votes[1:, 0] != votes[:-1, 0])[: len(votes)]
    leaders = np.flatnonzero(is_first)
    winner[votes[leaders, 0]] = votes[leaders, 1]
    seconds = leaders[(leaders + 1 < len(votes)) & ~np.append(is_first[1:], True)[leaders]]
    has_conflict[votes[seconds, 0]] = True
    has_majority[votes[seconds, 0]] = votes[seconds, 2] > votes[seconds + 1, 2]
    return winner, has_conflict, has_majority


def _sums(table: pa.Table, name: str, pair_index: npt.NDArray[np.intp], num_pairs: int) -> npt.NDArray[np.int64]:
    sums = np.zeros(num_pairs, dtype=np.int64)
    np.add.at(sums, pair_index, _numpy(table, name))  # not bincount: its floats lose counts beyond 2^53
    return sums


def _numpy(table: pa.Table, name: str) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = table.column(name).to_numpy()
    return values


def _rejected(partials: pa.Table, reason: str, class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {
            "stage": "prepare",
            "reason": reason,
            "detail": CONFLICT_REASONS[reason],
            "payload": json.dumps(_payload(row, class_names), ensure_ascii=False),
            "attempt": 0,
        }
        for row in partials.to_pylist()
    ]


def _payload(partial: dict[str, Any], class_names: tuple[str, ...]) -> dict[str, Any]:
    gold, split = partial["gold"], partial["split"]
    names = ("query", "locale", "item_id", "title", "brand", "category", "attributes", "impressions", "clicks")
    return {name: partial[name] for name in names} | {
        "gold": class_names[gold] if gold >= 0 else None,
        "split": SPLITS[split] if split >= 0 else None,
        "num_rows": partial["num_rows"],
    }
