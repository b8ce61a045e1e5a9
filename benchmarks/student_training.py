"""Samples/s of student training beside sentence-transformers' CrossEncoderTrainer: same backbone, pairs and precision.

    python -m benchmarks.student_training --pairs RUN [--num_pairs 640] [--rounds 3]

RUN is a directory of jobs.prepare with judged train pairs of the schema esci. One process on all cores, batches of 32,
as many pairs a call as --num_pairs; both tokenise beforehand or within the call as they do in use. The student is timed
as BERT alone (what the peer trains) and as LRKD with GAT and random embeddings. Rounds alternate. Writes
benchmarks/results/student_training.{md,json}.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import student_peer
from benchmarks.provenance import describe, provenance, write_result
from benchmarks.student_peer import BATCH, LEARNING_RATE
from raylib.models import resolve_model

RESULT = Path(__file__).parent / "results" / "student_training"
PEER = "CrossEncoderTrainer"


def read_train(pairs: str, num_pairs: int) -> Any:
    """The first judged train pairs as a table."""
    from raylib.labels import LabelSchema
    from raylib.student.dataset import read_judged

    splits, _ = read_judged(pairs, LabelSchema.load("esci"), ("title", "brand"))
    return splits["train"].slice(0, num_pairs)


def ours(table: Any, objective: str, extractor: str, dtype: str) -> Callable[[], float]:
    """A call that trains one epoch and returns its seconds, tokenisation included."""
    import torch
    from transformers import AutoTokenizer

    from raylib.kernels.training import speed_up
    from raylib.labels import LabelSchema
    from raylib.student.artifact import load_backbone
    from raylib.student.data import PairTokenizer
    from raylib.student.dataset import Guidance, tokenise_split
    from raylib.student.model import Student, StudentSpec
    from raylib.student.objectives import build_objective
    from raylib.student.train import TorchEngine, TrainSettings, train_epoch

    schema, backbone = LabelSchema.load("esci"), resolve_model("minilm")
    tokenizer = PairTokenizer(AutoTokenizer.from_pretrained(backbone), 128)
    rows = table.to_pylist()
    embedding_NE = np.random.default_rng(0).standard_normal((len(rows), 384)).astype(np.float32)
    known = {row["pair_id"]: n for n, row in enumerate(rows)}
    guidance = [Guidance(known, [row["gold"] for row in rows], embedding_NE)] if objective == "lrkd" else []
    settings = TrainSettings(num_epochs=1, global_batch=BATCH, learning_rate=LEARNING_RATE, warmup_ratio=0.1, seed=0)

    def train() -> float:
        student = Student(load_backbone(backbone), StudentSpec(label_schema=schema, extractor=extractor))
        student.objective = build_objective(objective, student.backbone, student.latent_size, 384)
        student.autocast_dtype = torch.bfloat16 if dtype == "bfloat16" else None
        speed_up(student.backbone)
        engine = TorchEngine(student, LEARNING_RATE, 0.01)
        started_s = time.perf_counter()
        judged, _ = tokenise_split(table, schema, ("title", "brand"), tokenizer, guidance)
        train_epoch(engine, judged, tokenizer, settings, 0)
        return time.perf_counter() - started_s

    return train


def peer(table: Any, dtype: str) -> Callable[[], float]:
    """The same of CrossEncoderTrainer."""
    from raylib.labels import LabelSchema
    from raylib.student.data import item_text

    schema, rows = LabelSchema.load("esci"), table.to_pylist()
    queries, items = [row["query"] for row in rows], [item_text(row, ("title", "brand")) for row in rows]
    labels, bf16 = [schema.index(row["gold"]) for row in rows], dtype == "bfloat16"
    return lambda: student_peer.trained(queries, items, labels, len(schema.names), num_epochs=1, bf16=bf16)[1]


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", required=True, help="run directory of jobs.prepare")
    parser.add_argument("--num_pairs", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    table = read_train(words.pairs, words.num_pairs)
    calls: dict[str, Callable[[], float]] = {}
    for dtype in ("float32", "bfloat16"):
        calls[f"{PEER}, {dtype}"] = peer(table, dtype)
        calls[f"student, BERT alone, {dtype}"] = ours(table, "bert", "none", dtype)
        calls[f"student, LRKD with GAT, {dtype}"] = ours(table, "lrkd", "gat", dtype)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(words.rounds):
        for name, call in calls.items():
            seconds[name].append(call())
    record = {
        **provenance(
            f"python -m benchmarks.student_training --pairs RUN --num_pairs {words.num_pairs} --rounds {words.rounds}"
        ),
        "num_pairs": table.num_rows,
        "seconds": seconds,
    }
    write_result(RESULT, record, report(record))


def report(record: dict[str, Any]) -> str:
    """The result as Markdown."""
    seconds = {name: np.array(taken) for name, taken in record["seconds"].items()}
    lines = [
        "# Student, training",
        "",
        describe(record, "torch", "transformers", "sentence-transformers"),
        f"One epoch over {record['num_pairs']} judged train pairs, MiniLM-L6, batches of {BATCH}, at most 128 tokens; "
        "medians over the rounds, in brackets the least and the largest.",
        "",
        f"| what | samples/s | times {PEER}, same precision | times {PEER}, float32 |",
        "|---|---:|---:|---:|",
    ]
    for name, taken_R in seconds.items():
        dtype = name.rsplit(", ", 1)[1]
        cells = [record["num_pairs"] / taken_R, *(seconds[f"{PEER}, {kind}"] / taken_R for kind in (dtype, "float32"))]
        shown = [
            f"{np.median(cell):.{digits}f} [{cell.min():.{digits}f}, {cell.max():.{digits}f}]"
            for cell, digits in zip(cells, (0, 2, 2), strict=True)
        ]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
