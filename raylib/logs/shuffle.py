"""The shuffle on Ray: units mapped, queries compared, buckets reduced; what is complete is never done again."""

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow.fs as pafs

from raylib import tables
from raylib.errors import InputError, TricotError
from raylib.labels import LabelSchema
from raylib.logs.budget import plan_budget
from raylib.logs.pairs import NO_TRAFFIC, traffic_bounds
from raylib.logs.queries import NUM_EXAMPLES, find_near, list_queries
from raylib.logs.reduce import reduce_bucket
from raylib.logs.source import Plan
from raylib.logs.spill import index_parts, map_unit, read_done, write_done
from raylib.tables import SEGMENTS, SPLITS

TASKS_PER_CPU = 2  # in flight: one that runs and one that is ready
MAX_PARTITIONS = 64  # of the queries' neighbour keys: each task opens a file a bucket, so not as many as buckets
Calls = list[tuple[str, tuple[Any, ...]]]  # name of the result, arguments of the task


def shuffle(
    output: str,
    plan: Plan,
    schema: LabelSchema,
    num_buckets: int,
    task_memory_mb: int,
    max_query_chars: int,
    max_title_chars: int,
    on_conflict: str,
    on_near_query: str,
    on_bad_file: str,
    dev_share: float,
    test_share: float,
    seed: int,
) -> dict[str, Any]:
    """Write the pairs table of `output` from the planned units, on the Ray session that is open.

    Returns the arguments of `Run.finish`: rows_in, rows_out, rejected and skipped count log rows; the rest are facts
    about pairs. Every node needs access to `output`: map outputs travel through its `shuffle/` folder.
    """
    output, budget = tables.absolute_uri(output), plan_budget(task_memory_mb)
    _check_same_input(output, plan)
    started_s = time.time()
    calls: Calls
    limits = (max_query_chars, max_title_chars, on_bad_file, budget)
    calls = [(f"map-{i:05d}", (output, i, unit, schema, num_buckets, *limits)) for i, unit in enumerate(plan.units)]
    mapped = _run_tasks(output, map_unit, calls)
    num_rows = sum(done["num_rows"] for done in mapped.values())
    print(f"prepare: {num_rows} rows mapped from {len(calls)} unit(s) in {time.time() - started_s:.1f} s", flush=True)

    parts, draw = index_parts(mapped, num_buckets), (dev_share, test_share, seed)
    num_partitions = min(num_buckets, MAX_PARTITIONS)
    calls = [(f"queries-{i:05d}", (output, i, parts[i], num_partitions, *draw, budget)) for i in range(num_buckets)]
    listed = _run_tasks(output, list_queries, calls)
    keys = index_parts(listed, num_partitions)
    calls = [(f"near-{i:05d}", (output, i, keys[i], num_buckets, budget)) for i in range(num_partitions)]
    near = _run_tasks(output, find_near, calls)
    print(f"prepare: queries compared after {time.time() - started_s:.1f} s", flush=True)

    examples = sorted(row for done in near.values() for row in done["examples"])[:NUM_EXAMPLES]
    wanted: list[list[int]] = [[] for _ in range(num_buckets)]
    for query_hash, _, other_hash, _ in examples:
        for key in (query_hash, other_hash):
            wanted[key % num_buckets].append(key)
    bounds = traffic_bounds(*(np.array([n for done in listed.values() for n in done[name]], np.int64)
                              for name in ("impressions", "num_queries")))  # fmt: skip
    near_parts = index_parts(near, num_buckets)
    settings = (bounds, schema, on_conflict, on_near_query, *draw, budget)
    calls = [
        (f"bucket-{i:05d}", (output, i, parts[i], near_parts[i], wanted[i], *settings)) for i in range(num_buckets)
    ]
    reduced = _run_tasks(output, reduce_bucket, calls)
    print(f"prepare: {num_buckets} buckets written after {time.time() - started_s:.1f} s", flush=True)
    return {
        **_account(plan, list(mapped.values()), list(reduced.values())),
        "least_impressions": {name: n if n < NO_TRAFFIC else None for name, n in zip(SEGMENTS, bounds, strict=False)},
        "near_examples": _examples(examples, list(reduced.values())),
        "shuffle_s": round(time.time() - started_s, 3),
    }


def _examples(examples: list[list[int]], reduced: list[dict[str, Any]]) -> list[dict[str, str]]:
    texts = {key: query for done in reduced for key, query in done["texts"].items()}
    return [
        {"query": texts[str(key)], "split": SPLITS[split],
         "near_query": texts[str(other)], "near_split": SPLITS[other_split]}
        for key, split, other, other_split in examples
    ]  # fmt: skip


def remove_map_outputs(output: str) -> None:
    """Delete the map outputs of a finished run."""
    fs, path = tables.filesystem(f"{output.rstrip('/')}/shuffle")
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


def _run_tasks(output: str, function: Callable[..., dict[str, Any]], calls: Calls) -> dict[str, dict[str, Any]]:
    """The result of every call by name and in order; complete ones are read back, the others run with few in flight."""
    results = {name: done for name, _ in calls if (done := read_done(output, name)) is not None}
    if results:
        print(f"prepare: {len(results)} of {len(calls)} {function.__name__} tasks were complete already", flush=True)
    left = deque(call for call in calls if call[0] not in results)
    for name, done in _in_flight(function, left):
        results[name] = done
    return {name: results[name] for name, _ in calls}


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
