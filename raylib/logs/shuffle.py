"""The shuffle on Ray: all units mapped, then all buckets reduced; what is complete is never done again."""

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow.fs as pafs

from raylib import tables
from raylib.errors import InputError, TricotError
from raylib.labels import LabelSchema
from raylib.logs.source import Plan, absolute_uri
from raylib.logs.spill import map_unit, read_done, reduce_bucket, write_done

TASKS_PER_CPU = 2  # in flight: one that runs and one that is ready


def shuffle(
    output: str,
    plan: Plan,
    schema: LabelSchema,
    num_buckets: int,
    max_query_chars: int,
    max_title_chars: int,
    on_conflict: str,
    on_bad_file: str,
    dev_share: float,
    test_share: float,
    seed: int,
) -> dict[str, Any]:
    """Write the pairs table of `output` from the planned units, on the Ray session that is open.

    Returns the arguments of `Run.finish`: rows_in, rows_out, rejected and skipped count log rows; the rest are facts
    about pairs. Every node needs access to `output`: map outputs travel through its `work/` folder.
    """
    output = absolute_uri(output)
    _check_same_input(output, plan)
    started_s = time.time()
    calls: list[tuple[str, tuple[Any, ...]]]
    calls = [(f"map-{i:05d}", (output, i, unit, schema, num_buckets, max_query_chars, max_title_chars, on_bad_file))
             for i, unit in enumerate(plan.units)]  # fmt: skip
    mapped = _run_tasks(output, map_unit, calls)
    num_rows = sum(done["num_rows"] for done in mapped)
    print(f"prepare: {num_rows} rows mapped from {len(calls)} unit(s) in {time.time() - started_s:.1f} s", flush=True)

    batches: list[list[tuple[int, list[int]]]] = [[] for _ in range(num_buckets)]
    for i, done in enumerate(mapped):
        positions: dict[int, list[int]] = {}
        for position, bucket in enumerate(done["buckets"]):
            positions.setdefault(bucket, []).append(position)
        for bucket, of_bucket in positions.items():
            batches[bucket].append((i, of_bucket))
    shares = (dev_share, test_share, seed)
    calls = [(f"bucket-{i:05d}", (output, i, batches[i], schema, on_conflict, *shares)) for i in range(num_buckets)]
    reduced = _run_tasks(output, reduce_bucket, calls)
    print(f"prepare: {num_buckets} buckets written after {time.time() - started_s:.1f} s", flush=True)
    return {**_account(plan, mapped, reduced), "shuffle_s": round(time.time() - started_s, 3)}


def remove_work(output: str) -> None:
    """Delete the map outputs of a finished run."""
    fs, path = tables.filesystem(f"{output.rstrip('/')}/work")
    if fs.get_file_info(path).type != pafs.FileType.NotFound:
        fs.delete_dir(path)


def _account(plan: Plan, mapped: list[dict[str, Any]], reduced: list[dict[str, Any]]) -> dict[str, Any]:
    rejected: Counter[str] = Counter()
    facts: Counter[str] = Counter()
    for done in (*mapped, *reduced):
        rejected.update(done["rejected"])
    for done in reduced:
        facts.update(done["facts"])
    damaged = [done for done in mapped if done["bad_file"]]
    skipped = {"bad_file": sum(done["num_rows"] for done in damaged)}
    bad_files = plan.bad_files + sorted({done["bad_file"] for done in damaged})
    return {
        "rows_in": sum(done["num_rows"] for done in mapped),
        "rows_out": facts.pop("log_rows", 0),
        "rejected": dict(+rejected),
        "skipped": dict(+Counter(skipped)),
        "num_cleaned_rows": sum(done["num_cleaned"] for done in mapped),
        "num_units": len(mapped),
        "num_bad_files": len(bad_files),
        "bad_files": bad_files,
        **facts,
    }


def _check_same_input(output: str, plan: Plan) -> None:
    """Map outputs of an unfinished run are only good for the input they came from."""
    units = json.loads(json.dumps([list(unit) for unit in plan.units]))
    stored = read_done(output, "plan")
    if stored is None:
        write_done(output, "plan", {"units": units})
    elif stored["units"] != units:
        raise InputError(f"{output}: the input has changed since this run began; choose another output directory")


def _run_tasks(
    output: str, function: Callable[..., dict[str, Any]], calls: list[tuple[str, tuple[Any, ...]]]
) -> list[dict[str, Any]]:
    """The result of every call in order; complete ones are read back, the others run with few in flight."""
    results = {name: done for name, _ in calls if (done := read_done(output, name)) is not None}
    if results:
        print(f"prepare: {len(results)} of {len(calls)} {function.__name__} tasks were complete already", flush=True)
    left = deque(call for call in calls if call[0] not in results)
    for name, done in _in_flight(function, left):
        results[name] = done
    return [results[name] for name, _ in calls]


def _in_flight(
    function: Callable[..., dict[str, Any]], left: deque[tuple[str, tuple[Any, ...]]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    import ray
    from ray.exceptions import RayTaskError

    task = ray.remote(num_cpus=1)(function)
    running: dict[Any, str] = {}
    while left or running:
        limit = TASKS_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))  # a cluster may grow meanwhile
        while left and len(running) < limit:
            name, arguments = left.popleft()
            running[task.remote(*arguments)] = name
        done, _ = ray.wait(list(running), num_returns=1)
        try:
            yield running.pop(done[0]), ray.get(done[0])
        except RayTaskError as error:
            for reference in running:
                ray.cancel(reference)
            if isinstance(error.cause, TricotError):
                raise error.cause from None  # the user's mistake, without the worker's traceback
            raise
