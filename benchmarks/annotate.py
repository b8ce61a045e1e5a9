"""Tokens a second of jobs.annotate, of the bare engine and of ray.data.llm, on the same prompts, one after the other.

    python -m benchmarks.annotate --pairs runs/demo/prepare --work /tmp/bench --rounds 3

Each system runs in processes of its own with each engine on one thread, all systems in each round. `start-up` is the
time until the engine is ready (for ray.data.llm, which does not tell, until its first answers); the rate is over the
time after it, without the bare engine's tokenisation but with the job's. Writes the raw figures as JSON and a table of
them as Markdown under benchmarks/results.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

from benchmarks.annotate_report import Found, render, together
from benchmarks.annotate_systems import cpu_seconds, run_bare, run_job, run_ray_data_llm
from benchmarks.provenance import provenance, shown_command, write_result

RESULTS = Path(__file__).parent / "results"
RUN = {"bare": run_bare, "job": run_job, "ray_data_llm": run_ray_data_llm}
MEASURED = ("bare 1", "job 1", "ray_data_llm 1", "bare 2", "job 2")
THREADS = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


def main() -> None:
    """Measure every system in every round, or, with --system, be one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--pairs", required=True, help="run directory of jobs.prepare")
    parser.add_argument("--work", required=True, help="directory for the job's run; emptied")
    parser.add_argument("--label_schema", default="marketplace6")
    parser.add_argument("--num_pairs", type=int, default=200)
    parser.add_argument("--num_few_shots", type=int, default=3)
    parser.add_argument("--max_tokens", type=int, default=96)
    parser.add_argument("--enforce_eager", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--measured", nargs="+", choices=MEASURED, default=MEASURED, help="system and engines")
    parser.add_argument("--name", default="annotate", help="of the two files under benchmarks/results")
    parser.add_argument("--system", choices=RUN, help="run this one alone and print its figures")
    parser.add_argument("--num_engines", type=int, default=1, help="with --system: engines; bare: parts")
    parser.add_argument("--part", type=int, default=0, help="with --system bare: which part of the requests")
    words = parser.parse_args()
    if words.system:
        be_system(words)
        return
    runs: list[Found] = []
    for number in range(words.rounds):
        for measured in words.measured:
            system, num_engines = measured.split()
            shutil.rmtree(f"{words.work}/job", ignore_errors=True)
            found = measure(system, int(num_engines))
            runs.append({"round": number, "system": system, "num_engines": int(num_engines), **found})
            print(runs[-1], flush=True)
    result = {**provenance(shown_command("benchmarks.annotate", sys.argv[1:])), "runs": runs}
    about = f"Each engine on one thread, float32, {words.num_pairs} pairs x 3 perspectives x 5 samples, at most "
    write_result(RESULTS / words.name, result, render(result, f"{about}{words.max_tokens} tokens."))


def be_system(words: argparse.Namespace) -> None:
    """Run one system in this process and print its figures for the one that started it."""
    from raylib.ray_session import ray_session

    with nullcontext() if words.system == "bare" else ray_session(4):
        found = {**RUN[words.system](words), "cpu_s": cpu_seconds()}
    print("RESULT " + json.dumps(found))


def measure(system: str, num_engines: int) -> Found:
    """The figures of a system in processes of its own; bare engines share the requests, as the job's do."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **(THREADS if system == "bare" else {})}
    command = [sys.executable, "-m", "benchmarks.annotate", *sys.argv[1:], "--system", system]
    command += ["--num_engines", str(num_engines), "--part"]
    parts = range(num_engines if system == "bare" else 1)
    started = [
        subprocess.Popen([*command, str(part)], env=environment, stdout=subprocess.PIPE, text=True) for part in parts
    ]
    said = [process.communicate()[0] for process in started]
    found = [
        json.loads(line.removeprefix("RESULT ")) for text in said for line in text.splitlines() if "RESULT " in line
    ]
    if len(found) < len(parts):
        raise SystemExit(f"{system} did not finish: {said[0][-2000:]}")
    return together(found)


if __name__ == "__main__":
    main()
