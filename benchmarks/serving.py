"""Serving under load: jobs.serve beside Infinity and a plain FastAPI server, one backbone, the same cores and texts.

    python -m benchmarks.serving --student RUN --work DIR [--infinity PYTHON] [--seconds 20] [--rounds 3]

RUN is a directory of jobs.distill on MiniLM; PYTHON an interpreter that has infinity-emb[torch,server]. Requests hold a
query and 20 texts of ESCI's test split where it lies beside the checkout (see student_inference). In each round every
system is measured with 1 and 16 clients that wait for their answers, then with arrivals at random at the same rates for
all (a rate of more than twice what 16 clients got is left out: without limits a queue only grows), and jobs.serve at
three times its capacity with a deadline of 1.75 times the p99 of a single client. The clients run on the same cores.
Also: a request of 100 pairs over HTTP beside the bare model, both on all cores and both on one, which leaves Serve the
other. Writes benchmarks/results/serving.{md,json}.
"""

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.provenance import describe, provenance, shown_command, write_result
from benchmarks.serving_load import Target, closed_loop, open_loop
from benchmarks.student_inference import read_pairs

RESULT = Path(__file__).parent / "results" / "serving"
PORT = 18611
MALLOPT = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}  # the parameters' numbers, see mallopt(3)
THREADS = 2
ITEMS = 20
CLIENTS = (1, 16)
RATES = (60, 120, 240, 480)  # pairs/s
OVERLOAD = 3  # times what 16 clients got
OVERLOADED = f"{OVERLOAD} times capacity"
PATIENCE = 1.75  # deadline of the requests then, times the p99 of a single client
MAX_WAIT_MS = 60_000.0  # only deadlines are to shed
OURS = ("jobs.serve, float32", "jobs.serve, bfloat16", "jobs.serve, int8")
INFINITY, PLAIN = "Infinity", "FastAPI + CrossEncoder"


def prepare_peer(work: Path) -> Path:
    """The backbone with one output, as the peers load it."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from raylib.models import resolve_model

    folder = work / "cross_encoder"
    if not folder.exists():
        model = AutoModelForSequenceClassification.from_pretrained(resolve_model("minilm"), num_labels=1)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(resolve_model("minilm")).save_pretrained(folder)
    return folder


def bodies(items: int, key: str, num: int = 64) -> tuple[bytes, ...]:
    """Requests in the shape of /rerank: `texts` (ours, plain) or `documents` (Infinity)."""
    _, pairs = read_pairs(num * items)
    texts = [f"{pair['title']} | {pair['brand']}" if pair["brand"] else str(pair["title"]) for pair in pairs]
    starts = range(0, len(texts) - items + 1, items)
    return tuple(
        json.dumps({"model": "peer", "query": pairs[start]["query"], key: texts[start : start + items]}).encode()
        for start in starts
    )


@contextmanager
def server(name: str, words: argparse.Namespace, peer: Path, threads: int = THREADS) -> Iterator[str]:
    """One system in processes of its own; gives the URL of its /rerank once it answers."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads)}
    base = f"http://127.0.0.1:{PORT}"
    if name == INFINITY:
        script = Path(__file__).parent / "serving_infinity.py"
        command = [words.infinity, str(script), str(peer), str(PORT), str(threads)]
        probe = "/health"
    elif name == PLAIN:
        command = [sys.executable, "-m", "benchmarks.serving_peer", str(peer), str(PORT), str(threads)]
        probe = "/health"
    else:
        command = [sys.executable, "-m", "jobs.serve", "--output", str(words.work / f"serve-{time.time_ns()}")]
        command += ["--model", words.student, "--port", str(PORT), "--dtype", name.split(", ")[1]]
        command += ["--replicas.num_cpus", str(threads), "--limits.max_wait_ms", str(MAX_WAIT_MS)]
        probe = "/readyz"
    with (words.work / "server.log").open("a") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(1200):
            if process.poll() is not None:
                raise SystemExit(f"{name} ended; see {words.work}/server.log")
            try:
                if httpx.get(base + probe, timeout=2.0).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.25)
        yield f"{base}/rerank"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def measure(name: str, words: argparse.Namespace, peer: Path) -> list[dict[str, Any]]:
    """Every load on one system."""
    found: list[dict[str, Any]] = []
    key = "documents" if name == INFINITY else "texts"
    with server(name, words, peer) as url:
        target = Target(url, bodies(ITEMS, key), ITEMS)
        closed_loop(target, 4, 5.0)  # warm-up
        for num_clients in CLIENTS:
            outcome = closed_loop(target, num_clients, words.seconds)
            found.append({"system": name, "load": f"{num_clients} clients", **outcome.figures()})
            print(found[-1], flush=True)
        capacity = found[-1]["pairs_a_second"]
        arrivals = {f"{rate} pairs/s": rate for rate in RATES if rate < 2 * capacity}
        if name in OURS:
            arrivals[OVERLOADED] = OVERLOAD * capacity
        for load, rate in arrivals.items():
            deadline_ms = round(PATIENCE * found[0]["p99_ms"]) if load == OVERLOADED else None
            outcome = open_loop(replace(target, deadline_ms=deadline_ms), rate / ITEMS, words.seconds)
            found.append({"system": name, "load": f"arrivals, {load}", **outcome.figures()})
            print(found[-1], flush=True)
        if name in OURS:
            found.append(overhead(name, words, url.removesuffix("/rerank"), THREADS))
            print(found[-1], flush=True)
    if name in OURS:
        with server(name, words, peer, 1) as url:
            found.append(overhead(name, words, url.removesuffix("/rerank"), 1))
            print(found[-1], flush=True)
    return found


def overhead(
    name: str, words: argparse.Namespace, base: str, threads: int, items: int = 100, repeats: int = 15
) -> dict[str, Any]:
    """A request of `items` pairs over HTTP beside the same pairs on the bare model in this process, alternating.

    The bare model keeps freed memory as the replicas do, so that what is measured is the way and not the allocator.
    """
    import torch

    from raylib.serving.deployment import REPLICA_ENV
    from raylib.student.inference import Scorer

    for parameter, value in REPLICA_ENV.items():
        ctypes.CDLL("libc.so.6").mallopt(MALLOPT[parameter], int(value))
    torch.set_num_threads(threads)
    scorer = Scorer(f"{words.student}/model", name.split(", ")[1], "cpu")
    _, pairs = read_pairs(items)
    pairs = [{**pair, "query": pairs[0]["query"]} for pair in pairs]
    names = ("title", "brand")
    sent = [{"item_id": str(number), **{n: pair[n] for n in names}} for number, pair in enumerate(pairs)]
    request = {"query": pairs[0]["query"], "locale": "en", "items": sent}
    served_ms, bare_ms = [], []
    with httpx.Client(base_url=base, timeout=60.0) as client:
        for _ in range(repeats + 2):
            started_s = time.perf_counter()
            scorer.score(pairs)
            bare_ms.append(1000 * (time.perf_counter() - started_s))
            started_s = time.perf_counter()
            client.post("/v1/score", json=request, headers={"X-Deadline-Ms": "60000"}).raise_for_status()
            served_ms.append(1000 * (time.perf_counter() - started_s))
    ratios = np.array(served_ms[2:]) / np.array(bare_ms[2:])
    return {
        "system": name,
        "load": f"{items} pairs, one request at a time",
        "model_threads": threads,
        "served_ms": float(np.median(served_ms[2:])),
        "bare_ms": float(np.median(bare_ms[2:])),
        "overhead": [float(value) - 1 for value in np.quantile(ratios, [0.5, 0.0, 1.0])],
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", required=True, help="run directory of jobs.distill on MiniLM")
    parser.add_argument("--work", type=Path, required=True, help="directory for servers' runs and logs")
    parser.add_argument("--infinity", help="interpreter that has infinity-emb; left out: not measured")
    parser.add_argument("--seconds", type=float, default=20.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    words.work.mkdir(parents=True, exist_ok=True)
    peer = prepare_peer(words.work)
    systems = [*OURS, PLAIN, *([INFINITY] if words.infinity else [])]
    runs = [
        {"round": number, **found}
        for number in range(words.rounds)
        for name in systems
        for found in measure(name, words, peer)
    ]
    result = {**provenance(shown_command("benchmarks.serving", sys.argv[1:])), "runs": runs}
    write_result(RESULT, result, report(result))


def report(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    source, _ = read_pairs(1)
    lines = [
        "# Serving under load",
        "",
        describe(result, "ray", "torch", "transformers", "sentence-transformers"),
        f"{ITEMS} {source} texts a request, MiniLM, {THREADS} threads; clients on the same cores. At {OVERLOADED} "
        f"requests have a deadline of {PATIENCE} times the p99 of a single client. Medians over the rounds, in "
        "brackets the least and the largest.",
        "",
        "| system | load | pairs/s answered | p50 ms | p95 ms | p99 ms | refused |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    runs = result["runs"]
    keys = list(dict.fromkeys((run["system"], run["load"]) for run in runs if "p50_ms" in run))
    for system, load in keys:
        mine = [run for run in runs if (run["system"], run["load"]) == (system, load)]
        cells = [_spread([run[name] for run in mine]) for name in ("pairs_a_second", "p50_ms", "p95_ms", "p99_ms")]
        refused = f"{100 * float(np.median([run['share_refused'] for run in mine])):.0f} %"
        lines.append(f"| {system} | {load} | {' | '.join(cells)} | {refused} |")
    lines += ["", *ratios(runs)]
    for system, threads in dict.fromkeys((run["system"], run["model_threads"]) for run in runs if "overhead" in run):
        mine = [run for run in runs if (run["system"], run.get("model_threads")) == (system, threads)]
        served, bare = (float(np.median([run[name] for run in mine])) for name in ("served_ms", "bare_ms"))
        share = float(np.median([run["overhead"][0] for run in mine]))
        lines.append(
            f"- {system}, the model on {threads} of the cores: a request of 100 pairs takes {served:.0f} ms over HTTP, "
            f"the bare model {bare:.0f} ms: {100 * share:.0f} % more."
        )
    return "\n".join(lines) + "\n"


def ratios(runs: list[dict[str, Any]]) -> list[str]:
    """Pairs/s with 16 clients over the better peer's of the same round, and the p99 of an overloaded service."""
    lines = []
    busiest, overload = f"{CLIENTS[-1]} clients", f"arrivals, {OVERLOADED}"

    def by_round(system: str, load: str, figure: str) -> np.ndarray:
        return np.array([run[figure] for run in runs if (run["system"], run["load"]) == (system, load)])

    peers = [name for name in (PLAIN, INFINITY) if any(run["system"] == name for run in runs)]
    best = np.max([by_round(name, busiest, "pairs_a_second") for name in peers], axis=0)
    for name in OURS:
        times = by_round(name, busiest, "pairs_a_second") / best
        waits = by_round(name, overload, "p99_ms") / by_round(name, f"{CLIENTS[0]} clients", "p99_ms")
        lines += [
            f"{name}: {_spread(list(times), 2)} times the pairs/s of the better peer with {busiest}; p99 of what is "
            f"accepted at {OVERLOAD} times capacity is {_spread(list(waits), 2)} times that of a single client.",
            "",
        ]
    return lines


def _spread(values: list[float], digits: int = 0) -> str:
    median, low, high = (f"{value:,.{digits}f}" for value in (np.median(values), min(values), max(values)))
    return f"{median} [{low}, {high}]"


if __name__ == "__main__":
    main()
