"""Runs the units of a plan on a pool of engines through Ray Data, and watches over them."""

import contextlib
import itertools
import json
import os
import queue
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any

import pyarrow as pa

from raylib.annotation.annotator import Annotator
from raylib.annotation.heartbeat import Board
from raylib.annotation.open_units import AnnotationTask
from raylib.annotation.progress import Limits, Progress, load_progress
from raylib.annotation.requests import UnitStats
from raylib.annotation.watchdog import Watchdog
from raylib.errors import ConfigError, StalledError
from raylib.tables import write_text

MAX_START_FAILURES = 2  # in a row, after which the job fails
MAX_UNITS_PER_TASK = 64
SHARES_PER_ENGINE = 4  # parts of what is left, of which an engine is given one
PROGRESS_EVERY_S = 5.0
SAVE_EVERY_S = 30.0


def annotate_units(task: AnnotationTask, num_engines: int, num_cpus: float, limits: Limits) -> Progress:
    """Annotate every unit that is not done yet; needs a Ray session.

    Ray Data restarts a dead engine and repeats its task without limit (its default, max_restarts and max_task_retries
    of -1); an engine that fails while it starts ends the job after three times in a row. Raises ConfigError when the
    pool cannot start, BudgetError when too many requests are rejected, StalledError when nothing moves any more.
    """
    plan = task.plan
    progress = load_progress(task.output, plan, len(task.perspectives) * task.samples, task.replay)
    left = [index for index in range(plan.num_units) if index not in progress.done]
    if progress.done:
        print(
            f"annotate: {len(progress.done)} of {plan.num_units} units were done before, {len(left)} are left",
            flush=True,
        )
    if left:
        try:
            _run(task, left, num_engines, num_cpus, limits, progress)
        finally:
            progress.save(task.output)
    progress.check(limits.budget)
    return progress


def sizes_of_tasks(num_units: int, num_engines: int) -> list[int]:
    """Units that engines are given at a time: many at first, one by one at the end (guided self-scheduling).

    At the end of the run engines wait for the last task, which costs less the shorter it is.
    """
    sizes = []
    while num_units:
        sizes.append(max(1, min(MAX_UNITS_PER_TASK, num_units // (SHARES_PER_ENGINE * num_engines))))
        num_units -= sizes[-1]
    return sizes


def _run(
    task: AnnotationTask, left: list[int], num_engines: int, num_cpus: float, limits: Limits, progress: Progress
) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    num_engines = min(num_engines, len(left))
    num_gpus = task.engine.num_gpus
    _check_resources(num_engines, num_cpus, num_gpus)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()
    context = ray.data.DataContext.get_current().copy()  # later datasets of this process keep their own
    # A unit's counts are one small row: as a block of its own it reaches the driver before the task's other units end.
    context.target_max_block_size = 1
    context.max_consecutive_actor_init_deaths = MAX_START_FAILURES
    context.enable_progress_bars = False
    units = iter(left)
    tasks = [list(itertools.islice(units, size)) for size in sizes_of_tasks(len(left), num_engines)]
    with ray.data.DataContext.current(context):
        dataset = ray.data.from_arrow([pa.table({"unit": task_units}) for task_units in tasks]).map_batches(
            Annotator,
            fn_constructor_args=(task, board),
            batch_size=None,  # a task is a block
            # The second task begins while the first one's last answers come in: an engine that drains runs half empty.
            compute=ray.data.ActorPoolStrategy(
                size=num_engines,
                max_tasks_in_flight_per_actor=2,
                max_concurrent_calls_per_actor=2,
                enable_true_multi_threading=True,
            ),
            num_cpus=num_cpus,
            num_gpus=num_gpus or None,
        )
    try:
        with contextlib.closing(_rows_or_nones(dataset)) as rows:
            _watch(rows, board, task.output, limits, progress)
    finally:
        ray.kill(board)  # Ray Data keeps what its actors were made from, so it would live as long as this process


def _watch(rows: Iterator[dict[str, Any] | None], board: Any, output: str, limits: Limits, progress: Progress) -> None:
    """Count finished units, print and store where the run is, and end it when a limit is reached."""
    import ray

    printed_s = saved_s = time.monotonic()
    watchdog = Watchdog(limits.start_s, limits.stall_s, moved_s=printed_s)
    for row in rows:
        now_s = time.monotonic()
        if row:
            progress.add(int(row["unit"]), UnitStats.from_dict(json.loads(row["stats"])), row["ready_at_s"])
            progress.check(limits.budget)
        if now_s - printed_s >= PROGRESS_EVERY_S:
            printed_s = now_s
            reports, num_starts = ray.get(board.reports.remote())
            progress.open_requests = sum(report["open_requests"] for report in reports.values())
            progress.open_tokens = sum(report["open_tokens"] for report in reports.values())
            started = [report["ready_at_s"] for report in reports.values() if report["ready_at_s"]]
            progress.ready_at_s = progress.ready_at_s or min(started, default=None)
            print(progress.line(), flush=True)
            num_ended = progress.open_requests + progress.total.num_requests
            # Ray restarts a lost actor under its own name, so starts beyond the names are deaths.
            num_deaths = num_starts - len(reports)
            is_ready = progress.ready_at_s is not None
            why = watchdog.look(now_s, num_ended, len(progress.done), num_deaths, is_ready)
            if why:
                _stop(output, reports, progress, why)
        if now_s - saved_s >= SAVE_EVERY_S:
            progress.note_history()
            progress.save(output)
            saved_s = now_s
    progress.open_requests = progress.open_tokens = 0
    progress.note_history()
    print(progress.line(), flush=True)


def _rows_or_nones(dataset: Any) -> Generator[dict[str, Any] | None, None, None]:
    """The dataset's rows as they come, and None every second: a watchdog must not wait for the thing it watches.

    Closing the generator ends the dataset at its next row.
    """
    results: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue()
    is_closed = threading.Event()

    def consume() -> None:
        try:
            for row in itertools.chain(dataset.iter_rows(), [None]):
                if is_closed.is_set():
                    return
                results.put(row)
        except BaseException as error:  # the driver's thread raises it
            results.put(error)

    threading.Thread(target=consume, daemon=True).start()
    try:
        while True:
            try:
                result = results.get(timeout=1.0)
            except queue.Empty:
                yield None
                continue
            if result is None:
                return
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        is_closed.set()


def _stop(output: str, reports: dict[str, Any], progress: Progress, why: str) -> None:
    """Write what each engine last said, then end the run."""
    import ray

    nodes = [{name: node[name] for name in ("NodeManagerAddress", "Alive", "Resources")} for node in ray.nodes()]
    state = {
        "why": why,
        "units_done": len(progress.done),
        "num_units": progress.plan.num_units,
        "engines": reports,
        "nodes": nodes,
    }
    write_text(f"{output}/stalled.json", json.dumps(state, indent=2, default=str))
    silent = [
        f"{report['node']} pid {report['pid']}: {report['state']}, silent for {time.time() - report['at_s']:.0f} s"
        for report in reports.values()
    ] or ["no engine has reported"]
    raise StalledError(
        f"{output}: {why}; {'; '.join(silent)}; the state of engines and nodes is in {output}/stalled.json; the same "
        "command resumes"
    )


def _check_resources(num_engines: int, num_cpus: float, num_gpus: float) -> None:
    """Without this, Ray Data waits for ever for engines that a local Ray can never start."""
    import ray

    needed = {"CPU": num_engines * num_cpus, "GPU": num_engines * num_gpus}
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
