"""jobs.prepare beside DuckDB on the same logs, cores and memory: rows/s, and whether peak memory grows with the rows.

    python -m benchmarks.prepare --scratch /tmp/prepare-benchmark --rows 1000000 4000000 10000000

Market logs are made by jobs.market (kept in --scratch). The two run in turn, --repeats times each, with --cores cores
and cores x --task_memory_mb of memory. Memory is the sum of the proportional set sizes (PSS) of a process and
everything it starts, Ray's own processes included, sampled five times a second. Writes benchmarks/results/prepare.md.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.provenance import describe, provenance

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "prepare.md"
SAMPLE_S = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scratch", type=Path, required=True, help="folder for logs and outputs, 0.1 GB a million rows"
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 4_000_000, 10_000_000])
    parser.add_argument("--num_queries", type=int, default=100_000, help="different searches in the market's logs")
    parser.add_argument("--num_buckets", type=int, default=16)
    parser.add_argument("--task_memory_mb", type=int, default=512)
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--result", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = []
    for num_rows in options.rows:
        market = options.scratch / f"market-{num_rows}"
        words = ["jobs.market", f"--output={market}", f"--num_rows={num_rows}", f"--num_queries={options.num_queries}"]
        run_process(["-m", *words])
        ours, duckdb = [], []
        for _ in range(options.repeats):
            ours.append(run_ours(market, options))
            duckdb.append(run_duckdb(market, options))
            print(num_rows, ours[-1], duckdb[-1], flush=True)
            same = {name: ours[-1][name] for name in ("num_pairs", "num_judged_pairs")}
            if same != {name: duckdb[-1][name] for name in same}:
                raise SystemExit(f"the two tables differ: {ours[-1]}, {duckdb[-1]}")
        rows.append((num_rows, ours, duckdb))
        options.result.parent.mkdir(parents=True, exist_ok=True)
        options.result.write_text(report(rows, options))
    print(options.result.read_text())


def run_ours(market: Path, options: argparse.Namespace) -> dict[str, Any]:
    output = options.scratch / "pairs-ours"
    shutil.rmtree(output, ignore_errors=True)
    words = [f"--input={market}", f"--output={output}", "--label_schema=marketplace6", "--on_near_query=count"]
    words += [f"--num_buckets={options.num_buckets}", f"--task_memory_mb={options.task_memory_mb}"]
    measured = run_process(["-m", "jobs.prepare", *words])
    metrics = json.loads((output / "metrics.json").read_text())
    names = ("num_pairs", "num_judged_pairs", "num_near_queries")
    return {"work_s": metrics["shuffle_s"], **measured, **{name: metrics[name] for name in names}}


def run_duckdb(market: Path, options: argparse.Namespace) -> dict[str, Any]:
    words = [str(ROOT / "benchmarks/prepare_duckdb.py"), str(market), str(options.scratch / "pairs-duckdb")]
    words += [f"--threads={options.cores}", f"--memory_mb={options.cores * options.task_memory_mb}"]
    measured = run_process([*words, f"--num_buckets={options.num_buckets}"])
    return {**measured, **json.loads(measured["output"].splitlines()[-1])}


def run_process(words: list[str]) -> dict[str, Any]:
    """Run Python; returns its seconds, output, peak PSS in MiB (process tree, largest task) and its tasks' CPU s."""
    started_s = time.monotonic()
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    peaks = {"tree_mib": 0.0, "task_mib": 0.0}
    cpu_s: dict[int, float] = {}
    stop = threading.Event()
    sampler = threading.Thread(target=sample, args=(process.pid, peaks, cpu_s, stop))
    sampler.start()
    output, _ = process.communicate()
    stop.set()
    sampler.join()
    if process.returncode:
        raise SystemExit(f"{words[:2]} ended with exit code {process.returncode}\n{output}")
    return {"whole_s": time.monotonic() - started_s, "output": output, "cpu_s": sum(cpu_s.values()), **peaks}


def sample(pid: int, peaks: dict[str, float], cpu_s: dict[int, float], stop: threading.Event) -> None:
    while not stop.wait(SAMPLE_S):
        total = 0.0
        try:
            for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
                size = pss_mib(process)
                total += size
                if is_task_worker(process):
                    peaks["task_mib"] = max(peaks["task_mib"], size)
                    cpu_s[process.pid] = sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
        peaks["tree_mib"] = max(peaks["tree_mib"], total)


def pss_mib(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss) / 2**20
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0


def is_task_worker(process: psutil.Process) -> bool:
    """Ray names its task workers `ray::...`, but its agents too."""
    try:
        title = process.cmdline()[:1]
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return any(word.startswith("ray::") and not word.rstrip().endswith("Agent") for word in title)


def report(rows: list[tuple[int, list[dict[str, Any]], list[dict[str, Any]]]], options: argparse.Namespace) -> str:
    command = f"python -m benchmarks.prepare --scratch DIR --rows {' '.join(str(n) for n, _, _ in rows)}"
    command += f" --num_queries {options.num_queries} --num_buckets {options.num_buckets}"
    result = provenance(f"{command} --task_memory_mb {options.task_memory_mb}")
    result["versions"]["duckdb"] = rows[0][2][0]["version"]
    lines = [
        "# jobs.prepare beside DuckDB: throughput and memory",
        "",
        describe(result, "ray", "pyarrow", "duckdb"),
        f"Medians of {options.repeats} runs each, in turn; {options.num_buckets} buckets; "
        f"`task_memory_mb` {options.task_memory_mb}, for DuckDB {options.cores * options.task_memory_mb} MB in all.",
        "",
        "| log rows | pairs | work s | rows/s | DuckDB s | DuckDB rows/s | ratio | whole job s | whole DuckDB s |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    memory = ["| log rows | largest task, MiB | all processes, MiB | DuckDB, MiB |", "|---:|---:|---:|---:|"]
    raw = []
    for num_rows, ours, duckdb in rows:
        work, other = median(ours, "work_s"), median(duckdb, "work_s")
        lines.append(
            f"| {num_rows:,} | {ours[0]['num_pairs']:,} | {work:.1f} | {num_rows / work:,.0f} | {other:.1f} | "
            f"{num_rows / other:,.0f} | {other / work:.2f} | {median(ours, 'whole_s'):.1f} | "
            f"{median(duckdb, 'whole_s'):.1f} |"
        )
        peaks = [max(run[name] for run in ours) for name in ("task_mib", "tree_mib")]
        memory.append(
            f"| {num_rows:,} | {peaks[0]:,.0f} | {peaks[1]:,.0f} | {max(r['tree_mib'] for r in duckdb):,.0f} |"
        )
        raw.append(
            f"- {num_rows:,} rows: work {seconds(ours)} s; DuckDB {seconds(duckdb)} s; rows a CPU second of ours "
            f"{num_rows / median(ours, 'cpu_s'):,.0f}; {ours[0]['num_near_queries']:,} near-identical queries found."
        )
    lines += ["", *memory, "", "Every run:", "", *raw]
    lines += [
        "",
        "`work s` is from the first task's start to the last bucket: the start of Ray's workers is in it, that of Ray",
        "is not (`whole job s` has both). DuckDB's is from the first to the last statement. Ours rejects bad rows with",
        "a reason each, can be resumed and finds near-identical queries across splits (`on_near_query: count`, so that",
        "the tables agree, which is checked); DuckDB's statements do neither. `rows a CPU second` divides by the CPU",
        "time of the task workers, imports included. Peaks are the largest of all runs. A load average above the",
        "number of cores means that other work shared the machine: seconds are then pessimistic, for both.",
        "",
    ]
    return "\n".join(lines)


def median(runs: list[dict[str, Any]], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def seconds(runs: list[dict[str, Any]]) -> str:
    return ", ".join(f"{run['work_s']:.1f}" for run in runs)


if __name__ == "__main__":
    main()
