"""What a restart of annotation costs: memory and time at 1, 4 and 16 M pairs, with 0, 50 and 99 % done.

    python -m benchmarks.resume --work DIR [--millions 1 4 16] [--seconds 60]

The engine is a stand-in that answers at once, so that what is measured is all of the job but the engine: planning,
Ray Data, reading, writing, bookkeeping. Each start is a process of its own that is killed after so many seconds, unless
it ends before; the units that are done when it starts were written ahead by the job's own writer. Memory is the largest
sum of the proportional set sizes of the driver, the engines and Ray over time.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.provenance import describe, provenance, write_result

RESULT = Path(__file__).parent / "results" / "resume"
NUM_BUCKETS = 64
NUM_ENGINES = 2
PAIRS_PER_UNIT = 2048
ANSWER = "what the shopper needs: role asked main product, item main product, same.\nLabel: Strongly Relevant"
SHARES_DONE = (0.0, 0.5, 0.99)


@dataclass(frozen=True)
class StandIn:
    """Starts the stand-in: nothing to configure."""

    num_gpus: float = 0.0

    def start(self, _sampling: Any) -> "Parrot":
        """The engine of this process."""
        return Parrot()


class Parrot:
    """Answers every request with the same words, as many as come at once."""

    def prompt(self, messages: Sequence[dict[str, str]]) -> Any:
        """The conversation as it is."""
        from raylib.annotation.requests import Prompt

        return Prompt(messages, None)

    def stream(self, next_request: Callable[[], Any]) -> Iterator[list[Any]]:
        """Batches of 256 answers."""
        from raylib.annotation.requests import Answer

        while True:
            batch = [request for _ in range(256) if (request := next_request())]
            yield [Answer(request, ANSWER, "stop", 300, 290, 25) for request in batch]
            if not batch:
                return


def write_pairs(output: Path, millions: int) -> None:
    """A pairs table of one file a bucket, as prepare writes it."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from raylib import tables

    rows = millions * 1_000_000 // NUM_BUCKETS
    words = np.random.default_rng(0).choice(["red", "kettle", "steel", "1.5 l", "Norvik", "pro", "kids"], (rows, 6))
    title = pa.array([" ".join(line) for line in words])
    output.mkdir(parents=True)
    for bucket in range(NUM_BUCKETS):
        numbers = np.arange(rows) + bucket * rows
        columns = {
            "pair_id": pa.array(
                [f"{number * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF:016x}" for number in numbers.tolist()]
            ),
            "bucket": pa.array(np.full(rows, bucket, np.int32)),
            "query": pa.array(["red kettle"] * rows),
            "item_id": pa.array([f"I{number}" for number in numbers.tolist()]),
            "title": title,
            "brand": pa.nulls(rows, pa.string()),
            "category": pa.nulls(rows, pa.string()),
            "attributes": pa.nulls(rows, pa.string()),
            "locale": pa.array(["en"] * rows),
            "impressions": pa.array(np.ones(rows, np.int64)),
            "clicks": pa.array(np.zeros(rows, np.int64)),
            "gold": pa.nulls(rows, pa.string()),
            "split": pa.array(["train"] * rows),
            "segment": pa.nulls(rows, pa.string()),
        }
        pq.write_table(
            pa.table(columns, schema=tables.PAIRS), output / f"bucket-{bucket:05d}.parquet", row_group_size=65_536
        )


def write_done(words: argparse.Namespace, share: float) -> int:
    """Make the first units until this share of all done, and no others; returns the number of all units."""
    from raylib import tables
    from raylib.annotation.open_units import NO_PROMPT
    from raylib.annotation.progress import FILE, load_progress
    from raylib.annotation.requests import Answer, Request, UnitStats, judge
    from raylib.annotation.units import done_units, plan_units, read_unit, unit_name, write_unit
    from raylib.labels import LabelSchema

    output, schema = f"{words.work}/run", LabelSchema.load("marketplace6")
    plan = plan_units(f"{words.work}/pairs", ["train"], None, PAIRS_PER_UNIT)
    num_done = int(share * plan.num_units)
    present = done_units(output)
    for index in present - set(range(num_done)):
        tables.delete(f"{output}/{unit_name(index)}.parquet")
    Path(output, FILE).unlink(missing_ok=True)
    for index in set(range(num_done)) - present:
        stats, rows = UnitStats(), []
        for pair in read_unit(plan, plan.unit(index)):
            request = Request(index, len(rows), pair["pair_id"], pair["bucket"], "user_intent", 0, NO_PROMPT)
            answer = Answer(request, ANSWER, "stop", 300, 290, 25)
            stats.add_answer(answer)
            rows.append(judge(answer, schema, "stand-in"))
            stats.add_row(rows[-1])
        stats.num_pairs = len(rows)
        write_unit(output, plan.unit(index), rows, [], stats.to_dict())
    if share:
        load_progress(output, plan, 1).save(output)
    return plan.num_units


def run_job(words: argparse.Namespace) -> None:
    """One start of annotation with the stand-in, in this process; prints what the start cost."""
    from raylib.annotation.dispatch import annotate_units
    from raylib.annotation.open_units import AnnotationTask
    from raylib.annotation.progress import ErrorBudget, Limits, load_progress
    from raylib.annotation.requests import Sampling
    from raylib.annotation.units import plan_units
    from raylib.labels import LabelSchema
    from raylib.prompts import load_perspective
    from raylib.ray_session import ray_session

    started_s = time.time()
    plan = plan_units(f"{words.work}/pairs", ["train"], None, PAIRS_PER_UNIT)
    planned_s = time.time()
    load_progress(f"{words.work}/run", plan, 1)
    print("START " + json.dumps({"plan_s": planned_s - started_s, "load_s": time.time() - planned_s}), flush=True)
    task = AnnotationTask(
        output=f"{words.work}/run",
        plan=plan,
        schema=LabelSchema.load("marketplace6"),
        perspectives=(load_perspective("user_intent"),),
        samples=1,
        num_few_shots=0,
        sampling=Sampling(0.7, 0.99, 50, 96, 0),
        max_attempts=1,
        engine=StandIn(),
        fingerprint="stand-in",
        driver=str(os.getpid()),
    )
    with ray_session(2):
        annotate_units(task, NUM_ENGINES, 1.0, Limits(ErrorBudget({}, 1), 600.0, 600.0))


def watch(words: argparse.Namespace) -> dict[str, Any]:
    """Start the job, kill it when its time is over, and say what was seen."""
    run = Path(words.work) / "run"
    before = count_units(run)
    command = [sys.executable, "-m", "benchmarks.resume", "--work", words.work, "--job"]
    log = Path(words.work) / "log"
    started_s = time.monotonic()
    first_s = driver_bytes = total_bytes = 0
    with log.open("w") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as job:
        process = psutil.Process(job.pid)
        while job.poll() is None and (not first_s or time.monotonic() - started_s < words.seconds):
            first_s = first_s or (count_units(run) > before and time.monotonic() - started_s)
            with contextlib.suppress(psutil.Error):
                own = process.memory_full_info().pss
                others = sum(child.memory_full_info().pss for child in process.children(recursive=True))
                driver_bytes, total_bytes = max(driver_bytes, own), max(total_bytes, own + others)
            time.sleep(0.2)
        ended_s = time.monotonic()
        has_ended = job.poll() is not None
        for child in [] if has_ended else [process, *process.children(recursive=True)]:
            child.kill()
    start = next(line for line in log.read_text().splitlines() if line.startswith("START "))
    return {
        "units_before": before,
        "units_after": count_units(run),
        "ended": has_ended,
        **{name: round(value, 2) for name, value in json.loads(start.removeprefix("START ")).items()},
        "first_unit_s": round(first_s or ended_s - started_s, 1),
        "wall_s": round(ended_s - started_s, 1),
        "driver_mib": driver_bytes >> 20,
        "all_mib": total_bytes >> 20,
    }


def count_units(run: Path) -> int:
    """Finished units."""
    return sum(name.startswith("unit-") for name in os.listdir(run)) if run.exists() else 0


def main() -> None:
    """Write tables, run the phases, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="directory for tables and runs; emptied")
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seconds", type=float, default=60.0, help="after which a start is killed")
    parser.add_argument("--job", action="store_true", help="internal: one start of the job")
    words = parser.parse_args()
    if words.job:
        run_job(words)
        return
    rows: list[dict[str, Any]] = []
    for millions in words.millions:
        shutil.rmtree(words.work, ignore_errors=True)
        write_pairs(Path(words.work) / "pairs", millions)
        for share in SHARES_DONE:
            num_units = write_done(words, share)
            rows.append({"millions": millions, "num_units": num_units, "share": share, **watch(words)})
            print(rows[-1], flush=True)
    command = f"python -m benchmarks.resume --work DIR --millions {' '.join(map(str, words.millions))}"
    result = {**provenance(f"{command} --seconds {words.seconds:g}"), "rows": rows}
    write_result(RESULT, result, report(result))


def report(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "# Resuming annotation: memory and time against the number of pairs",
        "",
        describe(result, "ray", "pyarrow"),
        f"Stand-in engine that answers at once, {NUM_ENGINES} engines, one perspective, one sample, units of "
        f"{PAIRS_PER_UNIT:,} pairs. Each start is killed (SIGKILL) after its time.",
        "",
        "| pairs | units | done at the start | planning s | reading what is done s | first new unit after s | done at "
        "its end | after s | driver, peak MiB | all processes, peak MiB |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["rows"]:
        end = f"{row['units_after']:,}" + (" (whole)" if row["ended"] else " (killed)")
        lines.append(
            f"| {row['millions']} M | {row['num_units']:,} | {row['units_before']:,} ({row['share']:.0%}) "
            f"| {row['plan_s']} | {row['load_s']} | {row['first_unit_s']} | {end} | {row['wall_s']} "
            f"| {row['driver_mib']:,} | {row['all_mib']:,} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
