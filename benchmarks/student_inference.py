"""Pairs/s of the student's offline scoring beside sentence-transformers' CrossEncoder: same backbone, pairs, machine.

    python -m benchmarks.student_inference --student RUN [--num_pairs 512] [--repeats 5]

RUN is a directory of jobs.distill, whose labels are ESCI's. The pairs are those of ESCI's test split where
../shared/data/esci lies beside the checkout, else synthetic ones without gold labels. All tokenise within the timed
call; runs alternate. Figures are medians of pairs/s and of the ratio within a round, each with the smallest and
largest. Writes benchmarks/results/student_inference.{md,json}.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.provenance import describe, provenance, write_result
from raylib.models import resolve_model

RESULT = Path(__file__).parent / "results" / "student_inference"
ESCI = Path(__file__).parents[2] / "shared" / "data" / "esci"
PEER = "CrossEncoder.predict, batch 32"
PLAIN = "the student's own modules"
FORM = {"float32": "Scorer, float32", "bfloat16": "Scorer, bfloat16", "int8": "Scorer, int8"}
M, K, N = 1024, 384, 1536  # the matrix product by which the limit is measured: MiniLM's widest, a batch of tokens


def read_pairs(num_pairs: int) -> tuple[str, list[dict[str, str | None]]]:
    """Name of the source, and pairs with query, title, brand and gold."""
    if not ESCI.exists():
        generator = np.random.default_rng(0)
        words = ["running", "shoes", "red", "blue", "waterproof", "phone", "case", "leather", "wireless", "charger"]
        texts = [" ".join(generator.choice(words, generator.integers(4, 30))) for _ in range(num_pairs)]
        return "synthetic", [{"query": text[:20], "title": text, "brand": None, "gold": None} for text in texts]
    import pandas as pd

    examples = pd.read_parquet(ESCI / "shopping_queries_dataset_examples.parquet")
    products = pd.read_parquet(ESCI / "shopping_queries_dataset_products.parquet")
    joined = examples[examples["split"] == "test"].merge(products, on=["product_id", "product_locale"]).head(num_pairs)
    names = {"product_title": "title", "product_brand": "brand", "esci_label": "gold"}
    renamed = joined.rename(columns=names)[["query", "title", "brand", "gold"]]
    return "ESCI, test split", renamed.astype(object).where(renamed.notna(), None).to_dict("records")


def limits() -> dict[str, float]:
    """GFLOP/s of one matrix product by precision, the best of five timings."""
    import torch

    x_MK, weight_NK, bias_N = torch.randn(M, K), torch.randn(N, K), torch.randn(N)
    calls: dict[str, Callable[[], Any]] = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight_NK.to(dtype), None)
        arguments = (x_MK.to(dtype), packed, bias_N.to(dtype), "none", [], "")
        calls[name] = lambda arguments=arguments: torch.ops.mkldnn._linear_pointwise(*arguments)
    packed = torch.ops.onednn.qlinear_prepack((weight_NK * 30).to(torch.int8), None)
    x_u8, ones, zeros = (x_MK * 30 + 128).to(torch.uint8), torch.ones(N), torch.zeros(N, dtype=torch.int32)
    after = (1.0, 0, torch.float32, "none", [], "")
    calls["int8"] = lambda: torch.ops.onednn.qlinear_pointwise(x_u8, 1.0, 128, packed, ones, zeros, bias_N, *after)
    calls["float32, torch.nn.functional.linear"] = lambda: torch.nn.functional.linear(x_MK, weight_NK, bias_N)
    found = {}
    for name, call in calls.items():
        seconds = []
        for _ in range(5):
            started_s = time.perf_counter()
            for _ in range(50):
                call()
            seconds.append(time.perf_counter() - started_s)
        found[name] = 50 * 2 * M * K * N / min(seconds) / 1e9
    return found


def systems(student_run: str, pairs: list[dict[str, str | None]]) -> tuple[dict[str, Callable[[], Any]], Any]:
    """What is timed, by name: each returns probabilities; and a scorer, for facts of the student."""
    import torch
    from sentence_transformers import CrossEncoder

    from raylib.student.artifact import load_student
    from raylib.student.data import item_text
    from raylib.student.inference import Scorer, predict_probs

    artifact = f"{student_run}/model"
    scorers = {dtype: Scorer(artifact, dtype, "cpu") for dtype in FORM}
    scorer = scorers["float32"]
    texts = [(pair["query"], item_text(pair, scorer.spec.item_fields)) for pair in pairs]
    calls: dict[str, Callable[[], Any]] = {}
    for dtype, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        peer = CrossEncoder(
            resolve_model("minilm"),
            num_labels=len(scorer.spec.label_schema.names),
            max_length=scorer.spec.max_length,
            model_kwargs={"dtype": kind},
            device="cpu",
        )
        calls[f"{PEER}, {dtype}"] = lambda peer=peer: peer.predict(texts, batch_size=32, show_progress_bar=False)
    plain = load_student(artifact)[0]
    calls[f"{PLAIN}, float32"] = lambda: predict_probs(plain, scorer.tokenizer, scorer.tokenise(pairs))
    for dtype, name in FORM.items():
        calls[name] = lambda scorer=scorers[dtype]: scorer.score(pairs)
    return calls, scorer


def giga_operations(scorer: Any, lengths_N: np.ndarray) -> float:
    """Of the encoder over all pairs, 10^9, padding not counted: matrix products and attention."""
    config = scorer.student.backbone.config
    size, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    by_token = 2 * (4 * size * size + 2 * size * inner)
    return float(layers * (by_token * lengths_N.sum() + 4 * size * (lengths_N.astype(float) ** 2).sum()) / 1e9)


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", required=True, help="run directory of jobs.distill")
    parser.add_argument("--num_pairs", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    words = parser.parse_args()
    source, pairs = read_pairs(words.num_pairs)
    load_before = os.getloadavg()[0]
    calls, scorer = systems(words.student, pairs)
    probs = {name: call() for name, call in calls.items()}  # also the first call of each shape, which is not timed
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(words.repeats):
        for name, call in calls.items():
            started_s = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started_s)
    lengths_N = scorer.tokenise(pairs).lengths_N
    record = {
        **provenance(
            f"python -m benchmarks.student_inference --student RUN --num_pairs {words.num_pairs} "
            f"--repeats {words.repeats}"
        ),
        "load_before": load_before,
        "source": source,
        "num_pairs": len(pairs),
        "mean_tokens": float(lengths_N.mean()),
        "max_tokens": int(lengths_N.max()),
        "extractor": scorer.spec.extractor,
        "seconds": seconds,
        "giga_operations": giga_operations(scorer, lengths_N),
        "limits": limits(),
        "quality": quality(
            {name: probs[name] for name in (f"{PLAIN}, float32", *FORM.values())},
            f"{PLAIN}, float32",
            scorer.spec.label_schema,
            [pair["gold"] for pair in pairs],
        ),
    }
    write_result(RESULT, record, report(record))


def quality(probs: dict[str, Any], exact: str, schema: Any, golds: list[str | None]) -> dict[str, dict[str, float]]:
    """Of each form of the student: how far a probability is at most from the form `exact`, changed labels, macro-F1."""
    from raylib.student.metrics import confusion, macro_f1

    exact_NC = probs[exact]
    codes = {one.code: index for index, one in enumerate(schema.classes)}
    known_N = np.array([gold in codes for gold in golds])
    gold_N = np.array([codes[gold] for gold in golds if gold in codes], np.int64)
    found = {}
    for name, probs_NC in probs.items():
        labels_N = probs_NC.argmax(1)
        found[name] = {
            "max_difference": float(np.abs(probs_NC - exact_NC).max()),
            "changed_labels": int((labels_N != exact_NC.argmax(1)).sum()),
        }
        if known_N.any():
            found[name]["macro_f1"] = macro_f1(confusion(gold_N, labels_N[known_N], len(schema.names)))
    return found


def report(record: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "# Student, offline scoring",
        "",
        describe(record, "torch", "transformers", "sentence-transformers"),
        f"{record['num_pairs']} pairs of {record['source']}, {record['mean_tokens']:.1f} tokens on average (longest "
        f"{record['max_tokens']}); MiniLM-L6, extractor {record['extractor']}; {len(record['seconds'][FORM['int8']])} "
        "alternating rounds. `limit`: share of the encoder's operations (padding not counted) in what a matrix product "
        f"of {M} x {K} x {N} reaches in that precision: "
        + ", ".join(f"{name} {value:.0f} GFLOP/s" for name, value in record["limits"].items())
        + ".",
        "",
        "| what | pairs/s | times CrossEncoder, same precision | times CrossEncoder, float32 | times Scorer, float32 "
        "| limit | largest difference of a probability | changed labels | macro-F1 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    seconds = {name: np.array(taken) for name, taken in record["seconds"].items()}
    for name, taken_R in seconds.items():
        dtype = name.rsplit(", ", 1)[1]
        rate_R = record["num_pairs"] / taken_R
        same = seconds.get(f"{PEER}, {dtype}")
        share_R = record["giga_operations"] / taken_R / record["limits"][dtype]
        facts = record["quality"].get(name)
        told = (
            f"{facts['max_difference']:.1e} | {facts['changed_labels']} | "
            + (f"{100 * facts['macro_f1']:.2f}" if "macro_f1" in facts else "")
            if facts
            else "| |"
        )
        lines.append(
            f"| {name} | {_spread(rate_R, 0)} | {_spread(same / taken_R, 2) if same is not None else ''} "
            f"| {_spread(seconds[f'{PEER}, float32'] / taken_R, 2)} | {_spread(seconds[FORM['float32']] / taken_R, 2)} "
            f"| {100 * np.median(share_R):.0f}% | {told} |"
        )
    return "\n".join(lines) + "\n"


def _spread(values: np.ndarray, digits: int) -> str:
    return f"{np.median(values):.{digits}f} [{values.min():.{digits}f}, {values.max():.{digits}f}]"


if __name__ == "__main__":
    main()
