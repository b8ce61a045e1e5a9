"""Random negatives: items of other queries beside a query, from which an encoder learns what belongs together.

A query lives in one file of the pairs table, so that one file at a time is enough to know what a query was shown with.

N pairs, G splits of a locale, D draws, O of them still open, M negatives found, R rows written.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raylib.labels import LabelSchema
from raylib.logs import text
from raylib.logs.query_key import query_hashes
from raylib.tables import PAIRS

Ints = npt.NDArray[np.int64]
ROUNDS = 8  # of drawing, again where the item is known for the query
OF_ITEM = ("item_id", "title", "brand", "category", "attributes")


def is_positive(
    pairs: pa.Table, schema: LabelSchema, min_gain: float, min_clicks: int | None, place: str
) -> npt.NDArray[np.bool_]:
    """Which pairs belong together, [N]: judged ones by their gain, with `min_clicks` unjudged ones by their clicks.

    Raises InputError naming `place` for a gold label outside the schema.
    """
    schema.refuse_outside(pairs["gold"].drop_null().unique().to_pylist(), place)
    good = [name for name, gain in zip(schema.names, schema.gains, strict=True) if gain >= min_gain]
    positive = pc.fill_null(pc.is_in(pairs["gold"], pa.array(good, pa.string())), False)
    if min_clicks is not None:
        unjudged = pc.and_(pairs["gold"].is_null(), pc.greater_equal(pairs["clicks"], min_clicks))
        positive = pc.or_(positive, unjudged)
    return np.asarray(positive, dtype=bool)


def with_negatives(
    pairs: pa.Table, is_positive_N: npt.NDArray[np.bool_], num_negatives: int, seed: int, labels: tuple[str, str]
) -> tuple[pa.Table, int]:
    """The positives of whole queries, each with up to `num_negatives` items of other queries, in the order of `pairs`.

    Items are drawn from the pairs of the same split and locale, as often as they are there; one that is known for the
    query in any pair, whatever its label, is never taken. `labels` are what positives and negatives get as gold.
    Also returns how many draws found no other item.
    """
    pairs = pairs.combine_chunks()
    owner_D = np.repeat(np.flatnonzero(is_positive_N), num_negatives)
    query_N = np.unique(query_hashes(pairs["query"].combine_chunks()), return_inverse=True)[1]
    item_N = _codes(pairs, "locale", "item_id")
    num_items = int(item_N.max(initial=0)) + 1
    known = query_N * num_items + item_N
    group_N = _codes(pairs, "split", "locale")
    by_group_N = np.argsort(group_N, kind="stable")
    starts_G = np.searchsorted(group_N[by_group_N], np.arange(int(group_N.max(initial=0)) + 2))
    drawn_D = np.full(len(owner_D), -1, np.int64)
    random = np.random.default_rng(seed)
    for _ in range(ROUNDS):
        open_D = np.flatnonzero(drawn_D < 0)
        group_O = group_N[owner_D[open_D]]
        candidate_O = by_group_N[random.integers(starts_G[group_O], starts_G[group_O + 1])]
        key_O = query_N[owner_D[open_D]] * num_items + item_N[candidate_O]
        first_O = np.unique(key_O, return_index=True)[1]  # a query gets an item once, in this round and over all
        new_O = first_O[~np.isin(key_O[first_O], known)]
        drawn_D[open_D[new_O]] = candidate_O[new_O]
        known = np.concatenate([known, key_O[new_O]])
    is_found_D = drawn_D >= 0
    owner_M = owner_D[is_found_D]
    negatives = _negatives(pairs.take(owner_M), pairs.take(drawn_D[is_found_D]), labels[1])
    positives = _replaced(pairs.filter(pa.array(is_positive_N)), gold=pa.repeat(labels[0], int(is_positive_N.sum())))
    place_R = np.concatenate([np.flatnonzero(is_positive_N), owner_M])
    rows = pa.concat_tables([positives, negatives]).take(np.argsort(place_R, kind="stable"))
    return rows, int((~is_found_D).sum())


def _negatives(owners: pa.Table, drawn: pa.Table, label: str) -> pa.Table:
    """Pairs of the owners' queries with the drawn items; nobody was shown them."""
    columns = (owners["locale"], owners["query"], drawn["item_id"])
    pair = text.pair_hashes(*(text.hash_texts(column.combine_chunks()) for column in columns))
    nothing = pa.array(np.zeros(owners.num_rows, np.int64))
    values = {name: drawn[name] for name in OF_ITEM}
    gold = pa.repeat(label, owners.num_rows)
    return _replaced(owners, **values, pair_id=text.hex_digits(pair), impressions=nothing, clicks=nothing, gold=gold)


def _replaced(pairs: pa.Table, **columns: Any) -> pa.Table:
    """`pairs` with other values in some columns."""
    return pa.table({name: columns.get(name, pairs[name]) for name in PAIRS.names}, PAIRS)


def _codes(pairs: pa.Table, first: str, second: str) -> Ints:
    """One number for each distinct combination of two columns' values, [N]."""
    hashes = [text.hash_texts(pairs[name].combine_chunks()) for name in (first, second)]
    return np.unique(text.mix(*hashes), return_inverse=True)[1]
