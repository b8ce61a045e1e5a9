"""How far a run is: counts, rates, the line that is printed, the file that is kept, and the limits that end it."""

import itertools
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from raylib import tables
from raylib.annotation.requests import UnitStats
from raylib.annotation.units import Plan, done_units, unit_stats
from raylib.errors import BudgetError

FILE = "progress.json"
MAX_HISTORY = 512  # points kept; when there are more, every second one goes


@dataclass(frozen=True)
class ErrorBudget:
    """Which share of the requests may be rejected before the run is ended on purpose."""

    shares: Mapping[str, float]  # by reason
    min_requests: int  # before so many have ended nothing is judged


@dataclass(frozen=True)
class Limits:
    """What ends a run on purpose."""

    budget: ErrorBudget
    start_s: float  # until the first engine is ready
    stall_s: float  # without any request that ended


@dataclass
class Progress:
    """Counts of finished units, with and without those of earlier attempts."""

    plan: Plan
    requests_per_pair: int
    replay: int = 0
    total: UnitStats = field(default_factory=UnitStats)
    here: UnitStats = field(default_factory=UnitStats)
    done: set[int] = field(default_factory=set)
    done_before: int = 0
    history: list[list[float]] = field(default_factory=list)  # [s, pairs, generated tokens], all attempts
    earlier_s: float = 0.0  # wall time of earlier attempts
    started_s: float = field(default_factory=time.time)
    ready_at_s: float | None = None  # when the first engine of this attempt had started
    work_s: float = 0.0  # from then to the last finished unit
    open_requests: int = 0  # ended requests of units that are not finished yet
    open_tokens: int = 0  # generated for them

    def add(self, index: int, stats: UnitStats, ready_at_s: float) -> None:
        """Count a unit that this attempt finished."""
        self.total.add(stats)
        if not self.replay:  # a replayed unit's counts are those of all attempts
            self.here.add(stats)
        self.done.add(index)
        self.ready_at_s = min(self.ready_at_s or ready_at_s, ready_at_s)
        self.work_s = max(time.time() - self.ready_at_s, 1e-9)

    @property
    def pairs_per_s(self) -> float:
        """Pairs a second of this attempt, start-up apart."""
        return self._rate(self.here.num_pairs + self.open_requests / self.requests_per_pair)

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens a second of this attempt, start-up apart."""
        return self._rate(self.here.generated_tokens + self.open_tokens)

    def _rate(self, amount: float) -> float:
        return amount / max(time.time() - self.ready_at_s, 1e-9) if self.ready_at_s else 0.0

    def line(self) -> str:
        """One line: done, rates of this attempt, time left, losses, shared prefill."""
        pairs = self.total.num_pairs + self.open_requests // self.requests_per_pair
        left_s = int((self.plan.num_pairs - pairs) / self.pairs_per_s) if self.pairs_per_s else None
        eta = "-" if left_s is None else f"{left_s // 3600:d}:{left_s // 60 % 60:02d}:{left_s % 60:02d}"
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.total.rejected.most_common()) or "none"
        hit_rate = self.total.cached_tokens / max(self.total.prompt_tokens, 1)
        return (
            f"annotate: {pairs:,}/{self.plan.num_pairs:,} pairs, {len(self.done):,}/{self.plan.num_units:,} units, "
            f"{self.pairs_per_s:.2f} pairs/s, {self.tokens_per_s:,.0f} tokens/s, ETA {eta}, "
            f"rejected: {reasons}, prefix cache {hit_rate:.0%}"
        )

    def note_history(self) -> None:
        """Remember where the run is now."""
        elapsed_s = round(self.earlier_s + time.time() - self.started_s, 1)
        self.history.append([elapsed_s, self.total.num_pairs, self.total.generated_tokens])
        if len(self.history) > MAX_HISTORY:
            self.history = self.history[::2]

    def check(self, budget: ErrorBudget) -> None:
        """Raise BudgetError when some reason has taken more than its share of the requests that have ended."""
        ended = self.total.num_requests
        if ended < budget.min_requests:
            return
        over = [
            f"{reason} {self.total.rejected[reason]:,} ({self.total.rejected[reason] / ended:.1%}, allowed {share:.1%})"
            for reason, share in budget.shares.items()
            if self.total.rejected[reason] > share * ended
        ]
        if over:
            raise BudgetError(
                f"of {ended:,} requests too many were rejected: {'; '.join(over)}; look at rejected/ for the cause. "
                "What is done is kept: mend the cause or raise the share under limits, then the same command goes on"
            )

    def facts(self) -> dict[str, Any]:
        """For metrics.json; the rates are those of this attempt."""
        counts = self.total.to_dict()
        names = ("num_pairs", "prompt_tokens", "cached_tokens", "generated_tokens", "retried", "labels")
        work_s = self.work_s or 1e-9
        return {
            **{name: counts[name] for name in names},
            "num_units": self.plan.num_units,
            "units_done_here": len(self.done) - self.done_before,
            "start_up_s": round(self.ready_at_s - self.started_s, 1) if self.ready_at_s else 0.0,
            "pairs_per_s": round(self.here.num_pairs / work_s, 3),
            "generated_tokens_per_s": round(self.here.generated_tokens / work_s, 1),
            "history": {"columns": ["s", "pairs", "generated_tokens"], "points": self.history},
        }

    def save(self, output: str) -> None:
        """Store the counts of all finished units, so that a restart need not open their files."""
        record = {
            "replay": self.replay,
            "done": ranges(self.done),
            "total": self.total.to_dict(),
            "history": self.history,
            "wall_s": self.earlier_s + time.time() - self.started_s,
        }
        tables.write_text(f"{output}/{FILE}", json.dumps(record))


def load_progress(output: str, plan: Plan, requests_per_pair: int, replay: int = 0) -> Progress:
    """What earlier attempts left: the stored counts, and the footers of units that finished after they were stored.

    A finished unit whose file cannot be read (a machine that lost power) is not done; nor is, in a replay, one that
    has rejected requests which this replay has not asked again.
    """
    progress = Progress(plan, requests_per_pair, replay)
    present = done_units(output)
    stored = json.loads(tables.read_text(f"{output}/{FILE}")) if tables.exists(f"{output}/{FILE}") else None
    if stored and stored["replay"] == replay and (known := indices(stored["done"])) <= present:
        progress.done = known
        progress.total = UnitStats.from_dict(stored["total"])
        progress.history, progress.earlier_s = stored["history"], stored["wall_s"]
    for index in sorted(present - progress.done):
        found = unit_stats(output, index)
        if found is None:
            print(f"annotate: {output}: the file of unit {index} cannot be read; the unit is done again", flush=True)
            continue
        stats = UnitStats.from_dict(found)
        if stats.is_done(replay):
            progress.total.add(stats)
            progress.done.add(index)
    progress.done_before = len(progress.done)
    return progress


def ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Ints as sorted [first, last] ranges: a run that is nearly done fits in a line."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def indices(stored: list[list[int]]) -> set[int]:
    """The inverse of `ranges`."""
    return set(itertools.chain.from_iterable(range(first, last + 1) for first, last in stored))
