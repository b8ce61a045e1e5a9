"""What every engine is doing, seen from the driver: between two finished units nothing else is."""

import os
import time
from collections.abc import Iterable
from typing import Any, Protocol

from raylib.annotation.requests import UnitStats

EVERY_S = 2.0


class Board:
    """The Ray actor that keeps the last report of each engine."""

    def __init__(self) -> None:
        self._reports: dict[str, dict[str, Any]] = {}
        self._num_starts = 0

    def post(self, name: str, report: dict[str, Any]) -> None:
        """Keep a report in place of the engine's earlier one."""
        self._num_starts += report["state"] == "starting"
        self._reports[name] = report

    def reports(self) -> tuple[dict[str, dict[str, Any]], int]:
        """Report by engine (node, pid, state, counts of its open units, at_s), and how many engines have started."""
        return self._reports, self._num_starts


class HasStats(Protocol):
    """An open unit."""

    @property
    def stats(self) -> UnitStats:
        """Its counts so far."""


class Heartbeat:
    """An engine's side: posts a report every EVERY_S seconds and counts for Prometheus (Ray's metrics agent)."""

    def __init__(self, board: Any) -> None:
        import ray
        from ray.util.metrics import Counter

        context = ray.get_runtime_context()
        self._board = board
        self._name = f"{context.get_actor_id() or 'driver'}"
        self._place = {"node": ray.util.get_node_ip_address(), "pid": os.getpid()}
        self._posted_s = 0.0
        self._ready_at_s: float | None = None  # when the engine had started
        self._answers = Counter("tricot_annotate_answers", "answers that parsed")
        self._tokens = Counter("tricot_annotate_generated_tokens", "tokens generated, all attempts")
        self._rejected = Counter("tricot_annotate_rejected", "requests without an answer", tag_keys=("reason",))

    def beat(self, state: str, units: Iterable[HasStats] = ()) -> None:
        """Post a report now."""
        stats = [unit.stats for unit in units]
        report: dict[str, Any] = {
            **self._place,
            "state": state,
            "open_units": len(stats),
            "open_requests": sum(one.num_requests for one in stats),
            "open_tokens": sum(one.generated_tokens for one in stats),
            "at_s": time.time(),
            "ready_at_s": self._ready_at_s,
        }
        self._posted_s = time.monotonic()
        if state != "starting" and self._ready_at_s is None:
            self._ready_at_s = report["ready_at_s"] = report["at_s"]
        self._board.post.remote(self._name, report)

    def working(self, units: Iterable[HasStats]) -> None:
        """Post a report when it is time for one."""
        if time.monotonic() - self._posted_s >= EVERY_S:
            self.beat("working", units)

    def count(self, stats: UnitStats) -> None:
        """Add a finished unit to the counters."""
        if stats.rows_out:
            self._answers.inc(stats.rows_out)
        if stats.generated_tokens:
            self._tokens.inc(stats.generated_tokens)
        for reason, count in stats.rejected.items():
            self._rejected.inc(count, {"reason": reason})
