"""Rows/s and peak memory of jobs.market at 1 M, 4 M and 10 M rows; the files are deleted after each size.

python -m benchmarks.market SCRATCH_DIR    # writes benchmarks/results/market.md
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.provenance import describe, provenance

SIZES = (1_000_000, 4_000_000, 10_000_000)
NUM_QUERIES = 100_000
ROOT = Path(__file__).parent.parent


def measure(num_rows: int, scratch: Path) -> dict[str, float]:
    """Run the job once in a process of its own, on one core."""
    output = scratch / f"market-{num_rows}"
    shutil.rmtree(output, ignore_errors=True)
    words = ["--output", str(output), "--num_rows", str(num_rows), "--num_queries", str(NUM_QUERIES)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(["taskset", "-c", "0", sys.executable, "-m", "jobs.market", *words], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"jobs.market ended with status {status}")
    metrics = json.loads((output / "metrics.json").read_text())
    size_bytes = sum(file.stat().st_size for file in output.glob("*.parquet"))
    shutil.rmtree(output)
    cpu_s = usage.ru_utime + usage.ru_stime
    return {
        "rows": num_rows,
        "rows_per_s": metrics["rows_per_s"],
        "rows_per_cpu_s": num_rows / cpu_s,
        "wall_s": metrics["wall_s"],
        "peak_mib": usage.ru_maxrss / 1024,
        "file_mib": size_bytes / 2**20,
        "load": os.getloadavg()[0],
    }


def main() -> None:
    scratch = Path(sys.argv[1])
    scratch.mkdir(parents=True, exist_ok=True)
    result = provenance("python -m benchmarks.market SCRATCH_DIR")
    results = [measure(num_rows, scratch) for num_rows in SIZES]
    table = [
        "| log rows | rows/s | rows per CPU second | wall s | peak RSS MiB | Parquet MiB | load average after |",
        "|---:|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {r['rows']:,} | {r['rows_per_s']:,.0f} | {r['rows_per_cpu_s']:,.0f} | {r['wall_s']:.1f} "
            f"| {r['peak_mib']:.0f} | {r['file_mib']:.0f} | {r['load']:.1f} |"
            for r in results
        ),
    ]
    lines = [
        "# Writing search logs of the synthetic marketplace",
        "",
        f"`jobs.market`, {NUM_QUERIES:,} queries, 6 locales, 1 M rows",
        "a file, a process pinned to one core. rows/s is wall time on that core, which other work may share; rows per",
        "CPU second counts the process's own time, start-up included. A load average",
        "above 1 is other work on the machine.",
        "",
        *table,
        "",
        describe(result, "pyarrow"),
    ]
    text = "\n".join(lines) + "\n"
    (ROOT / "benchmarks" / "results" / "market.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
