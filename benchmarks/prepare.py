"""jobs.prepare at three sizes: rows/s, and whether peak memory grows with the rows.

    python benchmarks/prepare.py --scratch /tmp/prepare-benchmark --rows 1000000 4000000 10000000

Market logs are made by jobs.market (kept in --scratch, so that a second call measures prepare only). Memory is the sum
of the proportional set sizes (PSS) of the driver and everything it starts, Ray's own processes included, sampled five
times a second. Writes benchmarks/results/prepare.md.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from raylib.runs import commit, package_versions

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "prepare.md"
SAMPLE_S = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scratch", type=Path, required=True, help="folder for logs and outputs, about 0.1 GB a million"
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 4_000_000, 10_000_000])
    parser.add_argument("--num_queries", type=int, default=100_000, help="different searches in the market's logs")
    parser.add_argument("--num_buckets", type=int, default=16)
    options = parser.parse_args()
    rows = []
    for num_rows in options.rows:
        market, output = options.scratch / f"market-{num_rows}", options.scratch / f"pairs-{num_rows}"
        run_job(["jobs.market", f"--output={market}", f"--num_rows={num_rows}", f"--num_queries={options.num_queries}"])
        shutil.rmtree(output, ignore_errors=True)
        words = ["jobs.prepare", f"--input={market}", f"--output={output}", "--label_schema=marketplace6"]
        peaks = run_job([*words, f"--num_buckets={options.num_buckets}"])
        rows.append((json.loads((output / "metrics.json").read_text()), peaks))
        print(rows[-1], flush=True)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(report(rows, options.num_buckets))
    print(RESULT.read_text())


def run_job(words: list[str]) -> dict[str, float]:
    """Run a job; returns peak PSS in MiB (process tree, largest task worker) and the workers' CPU time in s."""
    process = subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT)
    peaks = {"tree": 0.0, "worker": 0.0}
    cpu_s: dict[int, float] = {}
    stop = threading.Event()
    sampler = threading.Thread(target=sample, args=(process.pid, peaks, cpu_s, stop))
    sampler.start()
    code = process.wait()
    stop.set()
    sampler.join()
    if code:
        raise SystemExit(f"{words[0]} ended with exit code {code}")
    return peaks | {"cpu_s": sum(cpu_s.values())}


def sample(pid: int, peaks: dict[str, float], cpu_s: dict[int, float], stop: threading.Event) -> None:
    while not stop.wait(SAMPLE_S):
        total = 0.0
        try:
            for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
                size = pss_mib(process)
                total += size
                if is_task_worker(process):
                    peaks["worker"] = max(peaks["worker"], size)
                    cpu_s[process.pid] = sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
        peaks["tree"] = max(peaks["tree"], total)


def pss_mib(process: psutil.Process) -> float:
    try:
        return float(process.memory_full_info().pss) / 2**20
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0


def is_task_worker(process: psutil.Process) -> bool:
    try:
        return any("ray::" in word for word in process.cmdline()[:1])
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def report(rows: list[tuple[dict[str, Any], dict[str, float]]], num_buckets: int) -> str:
    versions = package_versions()
    lines = [
        "# jobs.prepare: throughput and memory",
        "",
        f"{time.strftime('%Y-%m-%d')}, commit {commit()}, Python {platform.python_version()}, ray {versions['ray']}, "
        f"pyarrow {versions['pyarrow']}; {os.cpu_count()} cores ({cpu_name()}), "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB; load average at the end {os.getloadavg()[0]:.1f}. "
        f"Market logs of jobs.market, {num_buckets} buckets.",
        "",
        "| log rows | pairs | shuffle s | rows/s | rows a CPU second | whole job s | peak of all processes, MiB |"
        " largest task, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for metrics, peaks in rows:
        lines.append(
            f"| {metrics['rows_in']:,} | {metrics['num_pairs']:,} | {metrics['shuffle_s']:.1f} | "
            f"{metrics['rows_in'] / metrics['shuffle_s']:,.0f} | {metrics['rows_in'] / peaks['cpu_s']:,.0f} | "
            f"{metrics['wall_s']:.1f} | "
            f"{peaks['tree']:,.0f} | {peaks['worker']:,.0f} |"
        )
    lines += [
        "",
        "`shuffle s` is the work itself; `whole job s` adds the start and end of a local Ray. `rows a CPU second`",
        "divides by the CPU time of the task workers, imports included: other work on the machine hardly changes it.",
        "Memory is PSS; Ray's own processes are included. A load average above the number of cores means that other",
        "work shared the machine: the seconds and rows/s are then pessimistic.",
        f"Command: `python benchmarks/prepare.py --scratch DIR --rows {' '.join(str(m['rows_in']) for m, _ in rows)}`",
        "",
    ]
    return "\n".join(lines)


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
