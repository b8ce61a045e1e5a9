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
from raylib.tables import PAIRS, SPLITS

CONFLICT_REASONS = {
    "conflicting_gold": "the pair has contradicting gold labels (on_conflict: reject), or no majority among them",
    "query_in_test": "the pair is published as train or dev, but its normalised query is also a test query",
}


class Pairs(NamedTuple):
    """The pairs of one bucket."""

    pairs: pa.Table  # PAIRS
    rejected: list[dict[str, Any]]  # rows of tables.REJECTED, one a pair
    rejected_rows: Counter[str]  # log rows by reason
    facts: Counter[str]  # num_pairs, num_queries, num_judged_pairs, num_conflicting_pairs, log_rows, one num_ a split


def combine(partials: pa.Table) -> pa.Table:
    """Add up partials of the same pair, gold label and published split; texts come from the last row.

    Logs are numbered (`sequence`) in the order of their file names, which is the order of time in most archives, so the
    last row has the newest wording of a title. `partials` must be in that order for each pair.
    """
    numbered = partials.append_column("row", pa.array(np.arange(partials.num_rows)))
    counts = ("num_rows", "impressions", "clicks")
    keys = ["pair", "gold", "split"]
    grouped = numbered.group_by(keys, use_threads=False).aggregate([(n, "sum") for n in counts] + [("row", "max")])
    columns = {name: grouped.column(name) for name in keys} | {n: grouped.column(f"{n}_sum") for n in counts}
    rest = [name for name in PARTIALS.names if name not in columns]
    texts = partials.select(rest).take(grouped.column("row_max"))
    return pa.table({**columns, **{name: texts.column(name) for name in rest}}).select(PARTIALS.names).cast(PARTIALS)


def combine_stream(batches: Iterable[pa.Table], limit_rows: int = 1_000_000) -> pa.Table:
    """Combine any number of partials while holding at most the distinct ones and `limit_rows` more."""
    combined, pending, num_pending = PARTIALS.empty_table(), [], 0
    for batch in batches:
        pending.append(batch)
        num_pending += batch.num_rows
        if num_pending >= limit_rows:
            combined, pending, num_pending = combine(pa.concat_tables([combined, *pending])), [], 0
    return combine(pa.concat_tables([combined, *pending]))


def by_bucket(partials: pa.Table, num_buckets: int) -> Iterator[tuple[int, pa.Table]]:
    """Cut partials into their buckets; bucket = hash of the normalised query mod num_buckets."""
    buckets = bucket_of(_numpy(partials, "query_hash"), num_buckets)
    order = np.argsort(buckets, kind="stable")
    edges = np.searchsorted(buckets[order], np.arange(num_buckets + 1))
    ordered = partials.take(order).combine_chunks()
    for bucket in np.flatnonzero(np.diff(edges)):
        yield int(bucket), ordered.slice(edges[bucket], edges[bucket + 1] - edges[bucket])


def bucket_of(query_hash: text.Hashes, num_buckets: int) -> npt.NDArray[np.int64]:
    """Bucket of each query."""
    return (query_hash % np.uint64(num_buckets)).astype(np.int64)


def split_of(query_hash: text.Hashes, dev_share: float, test_share: float, seed: int) -> npt.NDArray[np.int8]:
    """Position in SPLITS of each query: a uniform draw that depends on the normalised query and the seed only.

    The draw is mixed with the seed, so that it is independent of the bucket.
    """
    seeds = np.full(len(query_hash), seed, dtype=np.int64).astype(np.uint64)
    draw = text.mix(query_hash, seeds) / np.float64(2**64)
    test, dev = np.int8(SPLITS.index("test")), np.int8(SPLITS.index("dev"))
    return np.where(draw < test_share, test, np.where(draw < test_share + dev_share, dev, np.int8(0)))


def finish_bucket(
    partials: pa.Table,
    bucket: int,
    class_names: tuple[str, ...],
    on_conflict: str,
    dev_share: float,
    test_share: float,
    seed: int,
) -> Pairs:
    """Turn a bucket's combined partials into its pairs.

    A published split wins over a drawn one. Where it is given, `dev` is drawn from the train queries and nothing is
    added to or taken from the published test pairs.
    """
    order = np.lexsort((_numpy(partials, "sequence"), _numpy(partials, "pair"), _numpy(partials, "query_hash")))
    partials = partials.take(order)
    query_hash, published = _numpy(partials, "query_hash"), _numpy(partials, "split")
    is_published = published >= 0
    drawn = split_of(query_hash, dev_share, 0.0, seed)
    split = np.where(published == 0, drawn, published)
    split = np.where(is_published, split, split_of(query_hash, dev_share, test_share, seed)).astype(np.int8)
    in_test = np.isin(query_hash, query_hash[is_published & (split == SPLITS.index("test"))])
    leaks = in_test & (split != SPLITS.index("test"))
    kept, kept_split = partials.filter(pa.array(~leaks)), split[~leaks]

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
    gold = pa.array(class_names, pa.string()).take(pa.array(winner[good], mask=winner[good] < 0))
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
        }
    ).cast(PAIRS)

    leaked, conflicting = partials.filter(pa.array(leaks)), kept.filter(pa.array(undecided[pair_index]))
    rejected_rows = Counter(
        {"query_in_test": pc.sum(leaked.column("num_rows")).as_py() or 0,
         "conflicting_gold": pc.sum(conflicting.column("num_rows")).as_py() or 0}
    )  # fmt: skip
    facts = Counter(
        num_pairs=pairs.num_rows,
        num_queries=len(np.unique(_numpy(rows, "query_hash"))),
        num_judged_pairs=pairs.num_rows - gold.null_count,
        num_conflicting_pairs=int(has_conflict.sum()),
        log_rows=int(totals["num_rows"][good].sum()),
        **{f"num_{name}": pc.sum(pc.equal(pairs.column("split"), name)).as_py() or 0 for name in SPLITS},
    )
    rejected = _rejected(leaked, "query_in_test", class_names) + _rejected(conflicting, "conflicting_gold", class_names)
    return Pairs(pairs, rejected, rejected_rows, facts)


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
    np.add.at(sums, pair_index, _numpy(table, name))
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
