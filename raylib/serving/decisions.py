"""The decision log: what was answered to whom, as Parquet, without a request ever waiting for a disk.

Requests hand their decisions to a bounded queue; a thread writes them. When it is full, decisions are dropped and
counted: a log with a known gap is worth more than a server that stands still.
"""

import queue
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from raylib import tables
from raylib.config import Section
from raylib.errors import InputError

CHECK_EVERY_S = 0.2


class DecisionSection(Section):
    """Where decisions are kept."""

    folder: str | None = Field(None, description="table `decisions`, a path or URI that all nodes reach; null = none")
    max_waiting: int = Field(1000, ge=1, description="requests that may wait to be written; further ones are dropped")
    rows_per_file: int = Field(50_000, ge=1, description="rows after which a file is written")
    every_s: float = Field(60.0, gt=0, description="time after which a file is written, seconds")
    log_texts: bool = Field(False, description="also keep the query; off, as queries may name persons")


@dataclass(frozen=True)
class Decision:
    """One request's answer by one student. N items."""

    user_id: str | None
    arm: str | None
    model: str
    is_shadow: bool
    locale: str | None
    query: str
    item_ids: Sequence[str]
    labels: Sequence[str]
    scores: Sequence[float]
    tiers: Sequence[int]
    rules: Sequence[Sequence[str]]  # of each item
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)


class DecisionLog:
    """Writes the decisions of one replica; `count(result, rows)` hears what became of them: written or dropped."""

    def __init__(self, section: DecisionSection, count: Callable[[str, int], None]) -> None:
        self._section, self._count = section, count
        self._queue: queue.Queue[Decision] = queue.Queue(section.max_waiting)
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True, name="decisions") if section.folder else None
        if self._thread:
            self._thread.start()

    def note(self, decision: Decision) -> None:
        """Hand over a decision; returns at once."""
        if self._thread is None:
            return
        try:
            self._queue.put_nowait(decision)
        except queue.Full:
            self._count("dropped", len(decision.item_ids))

    def close(self) -> None:
        """Write what waits and end."""
        self._is_closing.set()
        if self._thread:
            self._thread.join()
            self._thread = None

    def _write(self) -> None:
        rows: list[dict[str, Any]] = []
        since_s = time.monotonic()
        while True:
            is_last = self._is_closing.is_set()  # read before the queue: what came before it is written
            try:
                rows += _rows(self._queue.get(timeout=CHECK_EVERY_S), self._section.log_texts)
                is_last = False
            except queue.Empty:
                pass
            is_due = len(rows) >= self._section.rows_per_file or time.monotonic() - since_s >= self._section.every_s
            if rows and (is_due or is_last):
                self._save(rows)
                rows, since_s = [], time.monotonic()
            elif not rows:
                since_s = time.monotonic()
            if is_last:
                return

    def _save(self, rows: list[dict[str, Any]]) -> None:
        try:
            file = f"{self._section.folder}/{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}.parquet"
            tables.write_parquet(file, tables.DECISIONS, [tables.rows_batch(rows, tables.DECISIONS)])
            self._count("written", len(rows))
        except (InputError, OSError) as error:  # a full disk must not end the serving
            print(f"decision log: {len(rows)} rows lost: {error}", flush=True)
            self._count("dropped", len(rows))


def _rows(decision: Decision, has_texts: bool) -> list[dict[str, Any]]:
    common = {
        name: getattr(decision, name)
        for name in ("request_id", "time", "user_id", "arm", "model", "is_shadow", "locale")
    }
    common["query"] = decision.query if has_texts else None
    columns = (decision.item_ids, decision.labels, decision.scores, decision.tiers, decision.rules)
    return [
        {**common, "item_id": item_id, "label": label, "score": score, "tier": tier, "rules": list(rules)}
        for item_id, label, score, tier, rules in zip(*columns, strict=True)
    ]
