"""Training tables to encoded examples: what the workers read, and the rows that are put aside with a reason."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from raylib import tables

INT_LIST = pa.list_(pa.int32())
LANGUAGE = pa.schema([pa.field("input_ids", INT_LIST), pa.field("labels", INT_LIST)])
PREFERENCE = pa.schema([pa.field(name, INT_LIST) for name in ("prompt_ids", "chosen_ids", "rejected_ids")])
WRITE_ROWS = 1000

Example = dict[str, list[int]]
Rejected = dict[str, Any]


def rejected_row(stage: str, reason: str, detail: str, row: Mapping[str, Any]) -> Rejected:
    """A row of the `rejected` table."""
    payload = json.dumps(dict(row), ensure_ascii=False, default=str)
    return {"stage": stage, "reason": reason, "detail": detail, "payload": payload, "attempt": 0}


def num_tokens(example: Example) -> int:
    """Length of the longest sequence that the model sees for an example."""
    if "input_ids" in example:
        return len(example["input_ids"])
    return len(example["prompt_ids"]) + max(len(example["chosen_ids"]), len(example["rejected_ids"]))


def encode_rows(
    rows: Iterable[Mapping[str, Any]],
    encode: Callable[[Mapping[str, Any]], Example],
    max_length: int,
    stage: str,
    rejected: list[Rejected],
) -> Iterator[Example]:
    """Encode row by row; a row that is longer than `max_length` tokens is rejected.

    Never truncated: the label stands at the end, and a cut example teaches to answer without one.
    """
    for row in rows:
        example = encode(row)
        length = num_tokens(example)
        if length > max_length:
            rejected.append(rejected_row(stage, "too_long", f"{length} tokens > max_length {max_length}", row))
        else:
            yield example


def write_examples(path: Path, schema: pa.Schema, examples: Iterable[Example]) -> dict[str, int]:
    """Write one Parquet file for the workers; returns `num_examples` and `num_tokens`."""
    counts = {"num_examples": 0, "num_tokens": 0}

    def batches() -> Iterator[pa.RecordBatch]:
        waiting: list[Example] = []
        for example in examples:
            counts["num_examples"] += 1
            counts["num_tokens"] += sum(len(ids) for name, ids in example.items() if name != "labels")
            waiting.append(example)
            if len(waiting) == WRITE_ROWS:
                yield pa.RecordBatch.from_pylist(waiting, schema)
                waiting = []
        if waiting:
            yield pa.RecordBatch.from_pylist(waiting, schema)

    tables.write_parquet(str(path), schema, batches())
    return counts
