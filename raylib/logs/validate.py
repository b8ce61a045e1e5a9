"""Rows -> partial pairs and rejected rows, one column at a time and without a Python loop over good rows.

The first reason that applies, in the order of REASONS, is the row's reason.
"""

import json
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raylib.labels import LabelSchema
from raylib.logs import text
from raylib.logs.query_key import query_hashes
from raylib.logs.rows import PARTIALS, ROWS, TEXT, TEXTS
from raylib.tables import SPLITS

REASONS = {
    "bad_text": "a text column is not valid UTF-8",
    "null_query": "the query is null",
    "blank_query": "the query shows nothing: empty, or only spaces, zero-width and control characters",
    "null_title": "the title is null",
    "blank_title": "the title shows nothing",
    "null_item_id": "the item_id is null or blank",
    "null_locale": "the locale is null or blank",
    "too_long": "a text is longer than max_query_chars (query) or max_title_chars (every other column)",
    "null_count": "impressions or clicks is null",
    "negative_count": "impressions or clicks is below zero",
    "label_outside_schema": "the gold label is no class name or code of the label schema",
    "unknown_split": "the published split is neither train, dev nor test",
}


class Validated(NamedTuple):
    """What one batch of rows became."""

    partials: pa.Table  # PARTIALS, one row for the good rows of a pair, gold label and published split
    num_good: int
    rejected: list[dict[str, Any]]  # rows of tables.REJECTED
    num_cleaned: int  # good rows in which a control character or a run of spaces was mended


class _Column(NamedTuple):
    """A text column as codes into its unique, cleaned values; code -1 is null."""

    codes: npt.NDArray[np.int64]
    values: pa.StringArray
    is_bad: npt.NDArray[np.bool_]
    is_changed: npt.NDArray[np.bool_]

    def rows(self, flags: npt.NDArray[np.bool_], null: bool = False) -> npt.NDArray[np.bool_]:
        """A flag of each unique value as a flag of each row."""
        return np.append(flags, null)[self.codes]

    def take(self, rows: npt.NDArray[np.int64]) -> pa.StringArray:
        codes = self.codes[rows]
        return self.values.take(pa.array(codes, mask=codes < 0))


def validate(
    rows: pa.Table, schema: LabelSchema, max_query_chars: int, max_title_chars: int, start: int = 0
) -> Validated:
    """Check, clean and hash one batch of ROWS whose first row has the number `start` in the order of the logs."""
    columns = {name: _encode(rows.column(name)) for name in TEXTS}
    reasons = _reasons(rows, columns, schema, max_query_chars, max_title_chars)
    keep = reasons < 0
    bad = np.flatnonzero(~keep)
    rejected = [] if not len(bad) else _rejected(rows.take(bad), [list(REASONS)[i] for i in reasons[bad]])
    partials = _partials(rows, columns, keep, schema, start)
    changed = np.any([column.rows(column.is_changed) for column in columns.values()], axis=0)
    return Validated(partials, int(keep.sum()), rejected, int((changed & keep).sum()))


def _encode(column: pa.ChunkedArray) -> _Column:
    unified = column.unify_dictionaries()
    values = unified.chunk(0).dictionary if unified.num_chunks else pa.array([], pa.string())
    if len(values) > len(column):  # a slice of a longer table: most of its dictionary belongs to other rows
        unified = column.cast(pa.string()).dictionary_encode()
        values = unified.chunk(0).dictionary
    is_bad = text.invalid_utf8(values)
    if is_bad.any():
        values = pc.if_else(pa.array(is_bad), "", values.cast(pa.binary())).cast(pa.string())
    values, is_changed = text.clean(values)
    indices = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in unified.chunks]
    codes = np.concatenate(indices).astype(np.int64) if indices else np.zeros(0, np.int64)
    return _Column(codes, values, is_bad, is_changed)


def _reasons(
    rows: pa.Table, columns: dict[str, _Column], schema: LabelSchema, max_query_chars: int, max_title_chars: int
) -> npt.NDArray[np.int64]:
    """Index into REASONS of each row, -1 for good rows."""

    def blank(name: str) -> npt.NDArray[np.bool_]:
        return columns[name].rows(text.is_blank(columns[name].values))

    def null(name: str) -> npt.NDArray[np.bool_]:
        return columns[name].codes < 0

    def long(name: str, limit: int) -> npt.NDArray[np.bool_]:
        too_long = pc.greater(pc.utf8_length(columns[name].values), limit).to_numpy(zero_copy_only=False)
        return columns[name].rows(too_long)

    def count(name: str) -> npt.NDArray[np.int64]:
        filled: npt.NDArray[np.int64] = rows.column(name).fill_null(0).to_numpy()
        return filled

    gold, split = columns["gold"], columns["split"]
    outside = np.array([schema.canonical(name) is None for name in gold.values.to_pylist()], dtype=bool)
    unknown = np.array([name not in SPLITS for name in split.values.to_pylist()], dtype=bool)
    nulls = [rows.column(name).is_null().to_numpy() for name in ("impressions", "clicks")]
    limits = {name: max_query_chars if name == "query" else max_title_chars for name in TEXTS}
    flags = {
        "bad_text": np.any([column.rows(column.is_bad) for column in columns.values()], axis=0),
        "null_query": null("query"),
        "blank_query": blank("query"),
        "null_title": null("title"),
        "blank_title": blank("title"),
        "null_item_id": null("item_id") | blank("item_id"),
        "null_locale": null("locale") | blank("locale"),
        "too_long": np.any([long(name, limit) for name, limit in limits.items()], axis=0),
        "null_count": nulls[0] | nulls[1],
        "negative_count": (count("impressions") < 0) | (count("clicks") < 0),
        "label_outside_schema": gold.rows(outside),
        "unknown_split": split.rows(unknown),
    }
    stacked = np.stack([flags[name] for name in REASONS])
    return np.where(stacked.any(axis=0), stacked.argmax(axis=0), -1)


def _partials(
    rows: pa.Table, columns: dict[str, _Column], keep: npt.NDArray[np.bool_], schema: LabelSchema, start: int
) -> pa.Table:
    def hashed(name: str, values: list[str] | pa.StringArray) -> text.Hashes:
        return np.append(text.hash_texts(values), np.uint64(0))[columns[name].codes[keep]]

    def code(name: str, values: list[int], kind: type[np.signedinteger[Any]]) -> npt.NDArray[Any]:
        return np.append(np.array(values, dtype=kind), kind(-1))[columns[name].codes[keep]]

    queries = columns["query"].values
    query_hash = np.append(query_hashes(queries), np.uint64(0))[columns["query"].codes[keep]]
    pair = text.pair_hashes(
        hashed("locale", columns["locale"].values),
        hashed("query", queries),
        hashed("item_id", columns["item_id"].values),
    )
    names = [schema.canonical(name) for name in columns["gold"].values.to_pylist()]
    gold = code("gold", [-1 if name is None else schema.index(name) for name in names], np.int16)
    published = columns["split"].values.to_pylist()
    split = code("split", [SPLITS.index(name) if name in SPLITS else -1 for name in published], np.int8)

    # Add up within the batch before any text is written out: rows of one pair stand together, in order of time.
    good = np.flatnonzero(keep)
    votes = (gold.astype(np.uint64) << np.uint64(8)) + split.astype(np.uint8)
    order = np.argsort(text.mix(pair, votes), kind="stable")
    is_first = np.append(True, (np.diff(pair[order]) != 0) | (np.diff(votes[order]) != 0))[: len(order)]
    starts = np.flatnonzero(is_first)
    newest = order[np.append(starts[1:], len(order))[: len(starts)] - 1]
    rank = np.argsort(newest)
    newest = newest[rank]

    def added(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        sums: npt.NDArray[np.int64] = np.add.reduceat(values[order], starts) if len(starts) else values[order]
        return sums[rank]

    counts = {name: rows.column(name).fill_null(0).to_numpy()[good] for name in ("impressions", "clicks")}
    made = {
        "pair": pair[newest],
        "query_hash": query_hash[newest],
        "gold": gold[newest],
        "split": split[newest],
        "sequence": start + good[newest],
        "num_rows": added(np.ones(len(good), dtype=np.int64)),
        **{name: added(values) for name, values in counts.items()},
    }
    texts = {name: columns[name].take(good[newest]) for name in TEXTS if name in PARTIALS.names and name not in made}
    return pa.table({**made, **texts}).select(PARTIALS.names).cast(PARTIALS)


def _rejected(rows: pa.Table, reasons: list[str]) -> list[dict[str, Any]]:
    """Rejected rows with their untouched content; bytes that are no UTF-8 appear as \\xNN."""
    columns = {
        field.name: rows.column(field.name).cast(pa.string()).cast(pa.binary())
        if field.type == TEXT
        else rows.column(field.name)
        for field in ROWS
    }
    contents = pa.table(columns).to_pylist()
    return [
        {
            "stage": "prepare",
            "reason": reason,
            "detail": REASONS[reason],
            "payload": json.dumps({name: _readable(value) for name, value in row.items()}, ensure_ascii=False),
            "attempt": 0,
        }
        for row, reason in zip(contents, reasons, strict=True)
    ]


def _readable(value: Any) -> Any:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
