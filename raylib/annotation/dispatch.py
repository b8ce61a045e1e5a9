"""Runs the units of a plan on a pool of engines through Ray Data, and reports how far it is."""

import json
import os
import time
from dataclasses import dataclass, field
from typing import Any

from raylib.annotation.annotator import AnnotationTask, Annotator
from raylib.annotation.requests import UnitStats
from raylib.annotation.units import done_units, unit_stats
from raylib.errors import ConfigError

MAX_START_FAILURES = 2  # in a row, after which the job fails
MAX_UNITS_PER_TASK = 8
PROGRESS_EVERY_S = 5.0


@dataclass
class Progress:
    """Counts of finished units, with and without those of earlier attempts."""

    num_units: int
    num_pairs: int
    total: UnitStats = field(default_factory=UnitStats)
    here: UnitStats = field(default_factory=UnitStats)
    units_done: int = 0
    units_done_here: int = 0
    started_at_s: float = field(default_factory=time.time)
    ready_at_s: float | None = None  # when the first engine of this attempt had started
    work_s: float = 0.0  # since then

    def add(self, stats: UnitStats, ready_at_s: float) -> None:
        """Count a unit that this attempt finished."""
        self.total.add(stats)
        self.here.add(stats)
        self.units_done += 1
        self.units_done_here += 1
        self.ready_at_s = min(self.ready_at_s or ready_at_s, ready_at_s)
        self.work_s = max(time.time() - self.ready_at_s, 1e-9)

    @property
    def pairs_per_s(self) -> float:
        """Pairs a second of this attempt, start-up apart."""
        return self.here.num_pairs / self.work_s if self.work_s else 0.0

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens a second of this attempt, start-up apart."""
        return self.here.generated_tokens / self.work_s if self.work_s else 0.0

    def line(self) -> str:
        """One line: done, rates of this attempt, time left, losses, shared prefill."""
        left_s = int((self.num_pairs - self.total.num_pairs) / self.pairs_per_s) if self.pairs_per_s else 0
        errors, rejected = self.total.errors.total(), self.total.rejected.total()
        hit_rate = self.total.cached_tokens / max(self.total.prompt_tokens, 1)
        return (
            f"annotate: {self.units_done}/{self.num_units} units, {self.total.num_pairs:,}/{self.num_pairs:,} pairs, "
            f"{self.pairs_per_s:.2f} pairs/s, {self.tokens_per_s:,.0f} tokens/s, "
            f"ETA {left_s // 3600:d}:{left_s // 60 % 60:02d}:{left_s % 60:02d}, "
            f"answers {self.total.rows_out:,} (unparsed {errors:,}), rejected {rejected:,}, prefix cache {hit_rate:.0%}"
        )

    def facts(self) -> dict[str, Any]:
        """For metrics.json; the rates are those of this attempt."""
        counts = self.total.to_dict()
        return {
            **{name: counts[name] for name in ("num_pairs", "prompt_tokens", "cached_tokens", "generated_tokens")},
            "errors": counts["errors"],
            "labels": counts["labels"],
            "num_units": self.num_units,
            "units_done_here": self.units_done_here,
            "start_up_s": round(self.ready_at_s - self.started_at_s, 1) if self.ready_at_s else 0.0,
            "pairs_per_s": round(self.pairs_per_s, 3),
            "generated_tokens_per_s": round(self.tokens_per_s, 1),
        }


def annotate_units(task: AnnotationTask, num_engines: int) -> Progress:
    """Annotate every unit that is not done yet; needs a Ray session. Raises ConfigError when the pool cannot start.

    Ray Data restarts a dead engine and repeats its task without limit (its default, max_restarts and max_task_retries
    of -1); an engine that fails while it starts ends the job after three times in a row.
    """
    plan = task.plan
    done = done_units(task.output, plan)
    progress = Progress(len(plan.units), plan.num_pairs)
    for index in sorted(done):
        progress.total.add(UnitStats.from_dict(unit_stats(task.output, plan.units[index])))
    progress.units_done = len(done)
    unfinished = [unit.index for unit in plan.units if unit.index not in done]
    if done:
        print(
            f"annotate: {len(done)} of {len(plan.units)} units were done before, {len(unfinished)} are left", flush=True
        )
    if unfinished:
        _run(task, unfinished, num_engines, progress)
    return progress


def _run(task: AnnotationTask, unfinished: list[int], num_engines: int, progress: Progress) -> None:
    import ray

    num_engines = min(num_engines, len(unfinished))
    _check_resources(task, num_engines)
    context = ray.data.DataContext.get_current()
    # A unit's counts are one small row: as a block of its own it reaches the driver before the task's other units end.
    context.target_max_block_size = 1
    context.max_consecutive_actor_init_deaths = MAX_START_FAILURES
    context.enable_progress_bars = False
    units_per_task = max(1, min(MAX_UNITS_PER_TASK, len(unfinished) // (2 * num_engines)))
    dataset = ray.data.from_items(
        [{"unit": index} for index in unfinished], override_num_blocks=len(unfinished)
    ).map_batches(
        Annotator,
        fn_constructor_args=(task,),
        batch_size=units_per_task,
        compute=ray.data.ActorPoolStrategy(size=num_engines),
        num_cpus=task.engine.num_cpus,
        num_gpus=task.engine.num_gpus or None,
    )
    printed_s = time.monotonic()
    for row in dataset.iter_rows():
        progress.add(UnitStats.from_dict(json.loads(row["stats"])), row["ready_at_s"])
        if time.monotonic() - printed_s >= PROGRESS_EVERY_S:
            print(progress.line(), flush=True)
            printed_s = time.monotonic()
    print(progress.line(), flush=True)


def _check_resources(task: AnnotationTask, num_engines: int) -> None:
    """Without this, Ray Data waits for ever for engines that a local Ray can never start."""
    import ray

    needed = {"CPU": num_engines * task.engine.num_cpus, "GPU": num_engines * task.engine.num_gpus}
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    short = [
        f"{amount:g} {name} (found {found.get(name, 0):g})"
        for name, amount in needed.items()
        if amount > found.get(name, 0)
    ]
    if not short:
        return
    message = f"{num_engines} engine(s) need {' and '.join(short)}"
    if not os.environ.get("RAY_ADDRESS"):
        raise ConfigError(f"{message}; lower engine.num_engines, engine.num_cpus or engine.num_gpus")
    print(f"annotate: {message}; waiting for the cluster to grow", flush=True)
