"""Drawing a subset of curated rows: as many of each class, or as many as another table has."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from raylib.errors import InputError
from raylib.runs import finished_metrics

Row = dict[str, Any]


def choose_rows(rows: Iterable[Row], max_rows: int | None, is_balanced: bool, seed: int) -> np.ndarray:
    """A mask [N] of the rows to keep, by hashes of their keys: a smaller subset lies within every larger one.

    Balanced, each gold class that occurs gives as many rows as the rarest one, at most its share of `max_rows`; this is
    ours, the papers do not balance. Memory is that of a hash and a class number a row.
    """
    number: dict[str, int] = {}
    classes, hashes = [], []
    for row in rows:
        classes.append(number.setdefault(row["gold"], len(number)))
        text = json.dumps([*row["key"], seed])
        hashes.append(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()))
    class_N, hash_N = np.array(classes, np.int32), np.array(hashes, np.uint64)
    is_kept_N = np.ones(len(class_N), dtype=bool)
    if is_balanced and number:
        limit = int(np.bincount(class_N).min())
        if max_rows is not None:
            limit = min(limit, max_rows // len(number))
        is_kept_N = np.zeros(len(class_N), dtype=bool)
        for one in number.values():
            places = np.flatnonzero(class_N == one)
            is_kept_N[places[np.argsort(hash_N[places], kind="stable")[:limit]]] = True
    elif max_rows is not None and max_rows < len(class_N):
        is_kept_N = np.zeros(len(class_N), dtype=bool)
        is_kept_N[np.argsort(hash_N, kind="stable")[:max_rows]] = True
    return is_kept_N


def rows_of(uri: str) -> int:
    """Rows of another curation, whose size is to be matched; raises InputError when it has not ended."""
    metrics = finished_metrics(uri)
    if metrics is None:
        raise InputError(f"size_of {uri}: holds no finished run; name the output of another curation")
    return int(metrics["rows_out"])


def kept_rows(rows: Iterable[Row], is_kept_N: np.ndarray | None, skipped: Counter[str]) -> Iterator[Row]:
    """The rows that a mask keeps (None = all); the others are counted as `not_drawn`."""
    for i, row in enumerate(rows):
        if is_kept_N is None or is_kept_N[i]:
            yield row
        else:
            skipped["not_drawn"] += 1


def check_classes(judged: Counter[str], kept: Counter[str]) -> None:
    """Raise InputError naming every gold class of the training pairs that gave no row."""
    missing = sorted(name for name, count in judged.items() if count and not kept[name])
    if missing:
        counts = ", ".join(f"{name} ({judged[name]:,} rows in)" for name in missing)
        raise InputError(
            f"no row to learn from for class {counts}: the teacher would forget it; annotate more pairs, take more "
            "samples, or set on_empty_class: count"
        )
