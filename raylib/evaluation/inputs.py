"""Reading what evaluation needs: judged pairs, traffic segments, models' scores and teachers' answers."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raylib import tables
from raylib.errors import InputError
from raylib.evaluation.metrics import NO_LABEL, Floats, Ints
from raylib.labels import LabelSchema

COLUMNS = ("pair_id", "query", "title", "brand", "locale", "gold", "split", "segment")


@dataclass(frozen=True)
class Judged:
    """Pairs with a gold label. `query_N` numbers the (locale, query) of a row; -1 in `segment_N` means no traffic."""

    table: pa.Table  # COLUMNS
    gold_N: Ints
    query_N: Ints
    segment_N: Ints  # index into tables.SEGMENTS

    def where(self, mask_N: np.ndarray) -> "Judged":
        """The rows that a boolean mask selects, in order."""
        return Judged(
            self.table.filter(pa.array(mask_N)), self.gold_N[mask_N], self.query_N[mask_N], self.segment_N[mask_N]
        )

    def column(self, name: str) -> np.ndarray:
        """A column as an object array."""
        return np.asarray(self.table.column(name).to_pylist(), dtype=object)

    def __len__(self) -> int:
        return int(self.table.num_rows)


@dataclass(frozen=True)
class Answers:
    """A teacher's parsed answers to judged pairs; `row_A` points into the Judged they were matched with."""

    row_A: Ints
    perspective_A: np.ndarray
    predicted_A: Ints  # -1 without a label
    error_A: np.ndarray  # None where parsed
    probs_AC: Floats  # class probabilities; NaN where the rationales table has none


def read_judged(uri: str, schema: LabelSchema) -> tuple[Judged, int]:
    """Judged pairs of all splits, and the number of rows of the whole table.

    Only judged rows stay in memory. Raises InputError for a gold label outside the schema, and for a table without a
    single judged pair.
    """
    kept, num_rows = [], 0
    for batch in tables.read_batches(uri, tables.PAIRS, COLUMNS):
        num_rows += batch.num_rows
        kept.append(pa.Table.from_batches([batch.filter(pc.is_valid(batch.column("gold")))]))
    judged = pa.concat_tables(kept) if kept else tables.PAIRS.empty_table().select(COLUMNS)
    if judged.num_rows == 0:
        raise InputError(f"{uri}: none of {num_rows} pairs has a gold label; evaluation needs judged pairs")
    number: dict[tuple[str, str], int] = {}
    rows = zip(judged.column("locale").to_pylist(), judged.column("query").to_pylist(), strict=True)
    query_N = np.fromiter((number.setdefault(key, len(number)) for key in rows), np.int64, judged.num_rows)
    places = pc.fill_null(pc.index_in(judged.column("segment"), pa.array(tables.SEGMENTS)), -1)
    segment_N = places.to_numpy().astype(np.int64)
    gold_N = _class_indices(judged.column("gold"), schema, uri)
    return Judged(judged, gold_N, query_N, segment_N), num_rows


def read_probs(uri: str, judged: Judged, num_classes: int) -> tuple[Floats, np.ndarray]:
    """A model's class probabilities for judged pairs, [N, C], and a mask [N] of the pairs it scored.

    Raises InputError when pair_ids repeat or the number of probabilities is not the schema's.
    """
    number = {pair_id: i for i, pair_id in enumerate(judged.table.column("pair_id").to_pylist())}
    probs_NC = np.full((len(judged), num_classes), np.nan)
    is_scored_N = np.zeros(len(judged), dtype=bool)
    for batch in tables.read_batches(uri, tables.SCORES, ["pair_id", "probs"]):
        widths = set(pc.list_value_length(batch.column("probs")).to_pylist())
        if widths - {num_classes}:
            raise InputError(
                f"{uri}: rows with {sorted(widths)} probabilities; the label schema has {num_classes} classes"
            )
        flat = batch.column("probs").flatten().to_numpy(zero_copy_only=False).astype(np.float64)
        for pair_id, probs_C in zip(batch.column("pair_id").to_pylist(), flat.reshape(-1, num_classes), strict=True):
            row = number.get(pair_id)
            if row is None:
                continue
            if is_scored_N[row]:
                raise InputError(f"{uri}: pair_id {pair_id} occurs twice; a scores table has one row a pair")
            probs_NC[row], is_scored_N[row] = probs_C, True
    return probs_NC, is_scored_N


def read_ensemble(uris: str | Sequence[str], judged: Judged, num_classes: int) -> tuple[Floats, np.ndarray]:
    """`read_probs` of one model, or the mean probabilities of several and the pairs that all of them scored."""
    found = [read_probs(uri, judged, num_classes) for uri in ([uris] if isinstance(uris, str) else uris)]
    probs_NC: Floats = np.mean([probs for probs, _ in found], axis=0)
    return probs_NC, np.all([is_scored for _, is_scored in found], axis=0)


def read_answers(uris: Sequence[str], judged: Judged, schema: LabelSchema) -> Answers:
    """The answers of one teacher, from one or more rationales runs, that belong to judged pairs.

    Raises InputError when the same (pair, perspective, sample) was answered twice, as two teachers would be mixed.
    """
    number = {pair_id: i for i, pair_id in enumerate(judged.table.column("pair_id").to_pylist())}
    index: dict[str | None, int] = {name: i for i, name in enumerate(schema.names)}
    seen: set[tuple[Any, ...]] = set()
    rows, perspectives, predicted, errors, probs = [], [], [], [], []
    unknown = [math.nan] * len(schema.names)
    for uri, answer in _answers(uris):
        row = number.get(answer["pair_id"])
        if row is None:
            continue
        key = (row, answer["perspective"], answer["sample"])
        if key in seen:
            raise InputError(
                f"{uri}: pair {answer['pair_id']}, perspective {key[1]}, sample {key[2]} was answered twice in the"
                " runs of one teacher; list runs of one teacher only"
            )
        seen.add(key)
        if answer["label"] is not None and answer["label"] not in index:
            raise InputError(f"{uri}: label {answer['label']!r} is outside the label schema {schema.name}")
        rows.append(row)
        perspectives.append(answer["perspective"])
        predicted.append(NO_LABEL if answer["label"] is None else index[answer["label"]])
        errors.append(answer["error"] or ("no_label" if answer["label"] is None else None))
        probs.append(answer["label_probs"] or unknown)
        if len(probs[-1]) != len(schema.names):
            raise InputError(f"{uri}: {len(probs[-1])} label_probs, but {schema.name} has {len(schema.names)} classes")
    return Answers(
        np.array(rows, np.int64),
        np.array(perspectives, object),
        np.array(predicted, np.int64),
        np.array(errors, object),
        np.array(probs, np.float64).reshape(len(rows), len(schema.names)),
    )


def _answers(uris: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of the rationales tables, and of the requests that were rejected: the teacher owes their answers."""
    columns = ["pair_id", "perspective", "sample", "label", "error", "label_probs"]
    for uri in uris:
        for batch in tables.read_batches(uri, tables.RATIONALES, columns):
            for answer in batch.to_pylist():
                yield uri, answer
        for row in _rejected(f"{uri}/rejected"):
            request = json.loads(row["payload"])
            key = {name: request[name] for name in ("pair_id", "perspective", "sample")}
            yield uri, {**key, "label": None, "error": row["reason"], "label_probs": None}


def _rejected(uri: str) -> Iterator[dict[str, Any]]:
    if tables.exists(uri):
        for batch in tables.read_batches(uri, tables.REJECTED):
            yield from batch.to_pylist()


def _class_indices(labels: pa.ChunkedArray, schema: LabelSchema, uri: str) -> Ints:
    schema.refuse_outside(labels.unique().to_pylist(), uri)
    indices_N: Ints = pc.index_in(labels, value_set=pa.array(schema.names)).to_numpy().astype(np.int64)
    return indices_N
