"""Rationales/s of jobs.embed beside bare SentenceTransformer.encode: same encoder, texts, batch size and threads.

    python -m benchmarks.embed --rationales RUN --work DIR [--rounds 3]

Each in a process of its own, one after the other, in every round. The job's rate is over all of its time but the start
of Ray and of the encoder's process, which is given apart; it reads and writes Parquet files, the bare encoder holds the
texts in memory. The vectors are compared. Writes benchmarks/results/embed.{md,json}.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.provenance import describe, provenance, write_result
from raylib import tables

RESULT = Path(__file__).parent / "results" / "embed"
BATCH = 64


def bare(words: argparse.Namespace) -> dict[str, float]:
    """Seconds to load the encoder and to embed all texts, which are written for the comparison."""
    from sentence_transformers import SentenceTransformer

    from raylib.models import resolve_model

    texts = [row["rationale"] for row in _rows(words)]
    started_s = time.perf_counter()
    model = SentenceTransformer(resolve_model("minilm"), device="cpu", model_kwargs={"dtype": words.dtype})
    loaded_s = time.perf_counter()
    vectors = model.encode(texts, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)
    done_s = time.perf_counter()
    np.save(f"{words.work}/bare.npy", np.asarray(vectors, np.float32))
    return {"start_s": loaded_s - started_s, "embed_s": done_s - loaded_s, "num_texts": len(texts)}


def job(words: argparse.Namespace) -> dict[str, float]:
    """The same of the job; its start is that of a run with one rationale, once Ray itself has started all it needs."""
    from jobs.embed import EmbedConfig, run
    from raylib.ray_session import ray_session

    values = {"cpus_per_actor": os.cpu_count(), "batch_size": BATCH, "dtype": words.dtype, "max_tokens": 256}
    with ray_session():
        seconds = {}
        one = f"{words.work}/one"
        for name, rationales in (("first", one), ("second", one), ("all", words.rationales)):
            settings = {"output": f"{words.work}/{name}", "rationales": rationales, **values}
            started_s = time.perf_counter()
            metrics = run(EmbedConfig.from_mapping(settings, "benchmark"))
            seconds[name] = time.perf_counter() - started_s
    start_s = seconds["second"]
    return {"start_s": start_s, "embed_s": seconds["all"] - start_s, "num_texts": metrics["rows_out"]}


def _rows(words: argparse.Namespace) -> list[dict[str, Any]]:
    table = tables.read_table(words.rationales, tables.RATIONALES)
    return [row for row in table.to_pylist() if row["perspective"] == "unified" and row["sample"] == 0]


def largest_difference(work: str, rows: list[dict[str, Any]]) -> float:
    """Largest difference of a component between the job's vectors and the bare encoder's."""
    table = tables.read_table(f"{work}/all", tables.EMBEDDINGS, ["pair_id", "embedding"])
    found = dict(zip(table["pair_id"].to_pylist(), table["embedding"].to_pylist(), strict=True))
    ours = np.array([found[row["pair_id"]] for row in rows])
    return float(np.abs(ours - np.load(f"{work}/bare.npy")).max())


def main() -> None:
    """Measure in rounds, or, with --system, be one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rationales", required=True, help="run directory of jobs.annotate with unified answers")
    parser.add_argument("--work", required=True, help="directory for runs; emptied")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--system", choices=("bare", "job"), help="run this one alone and print its figures")
    words = parser.parse_args()
    if words.system:
        print("RESULT " + json.dumps({"bare": bare, "job": job}[words.system](words)))
        return
    rows = _rows(words)
    runs: dict[str, list[dict[str, float]]] = {"bare": [], "job": []}
    for _ in range(words.rounds):
        for system, found in runs.items():
            if system == "bare":
                shutil.rmtree(words.work, ignore_errors=True)
                one = tables.rows_batch(rows[:1], tables.RATIONALES)
                tables.write_parquet(f"{words.work}/one/part.parquet", tables.RATIONALES, [one])
            command = [sys.executable, "-m", "benchmarks.embed", *sys.argv[1:], "--system", system]
            said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            found.append(json.loads(said.rpartition("RESULT ")[2].splitlines()[0]))
    record = {
        **provenance(f"python -m benchmarks.embed --rationales RUN --work DIR --rounds {words.rounds}"),
        "dtype": words.dtype,
        "runs": runs,
        "largest_difference": largest_difference(words.work, rows),
        "mean_characters": float(np.mean([len(row["rationale"]) for row in rows])),
    }
    write_result(RESULT, record, report(record))


def report(record: dict[str, Any]) -> str:
    """The result as Markdown."""
    rates = {
        name: np.array([run["num_texts"] / run["embed_s"] for run in runs]) for name, runs in record["runs"].items()
    }
    lines = [
        "# Embedding rationales",
        "",
        describe(record, "ray", "torch", "transformers", "sentence-transformers"),
        f"{record['runs']['bare'][0]['num_texts']:.0f} rationales of {record['mean_characters']:.0f} characters, "
        f"MiniLM, {record['dtype']}, batches of {BATCH}; medians over the rounds, in brackets the least and the "
        f"largest. Largest difference of a component: {record['largest_difference']:.1e}.",
        "",
        "| what | rationales/s | times bare | start, s |",
        "|---|---:|---:|---:|",
    ]
    for name, title in (("bare", "SentenceTransformer.encode"), ("job", "jobs.embed")):
        ratio = rates[name] / rates["bare"]
        starts = [run["start_s"] for run in record["runs"][name]]
        lines.append(
            f"| {title} | {np.median(rates[name]):.0f} [{rates[name].min():.0f}, {rates[name].max():.0f}] "
            f"| {np.median(ratio):.2f} [{ratio.min():.2f}, {ratio.max():.2f}] | {np.median(starts):.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
