"""Pairs/s of the student's offline scoring beside sentence-transformers' CrossEncoder: same backbone, pairs, machine.

    python -m benchmarks.student_inference [--num_pairs 512] [--repeats 3]

Writes benchmarks/results/student_inference.md. The pairs are ESCI's where ../shared/data/esci lies beside the
checkout, else synthetic ones. Both sides tokenise within the timed call; runs alternate. Figures are medians of pairs/s
and of the ratio within a round, each with the smallest and largest.
"""

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np

from raylib.labels import LabelSchema
from raylib.models import resolve_model
from raylib.runs import commit, package_versions

ROOT = Path(__file__).parents[1]
ESCI = ROOT.parent / "shared" / "data" / "esci"
EXTRACTORS = ("none", "mlp", "poly", "gat")


def read_pairs(num_pairs: int) -> tuple[str, list[dict[str, str | None]]]:
    """Name of the source, and pairs with query, title and brand."""
    if not ESCI.exists():
        generator = np.random.default_rng(0)
        words = ["running", "shoes", "red", "blue", "waterproof", "phone", "case", "leather", "wireless", "charger"]
        texts = [" ".join(generator.choice(words, generator.integers(4, 30))) for _ in range(num_pairs)]
        return "synthetic", [{"query": text[:20], "title": text, "brand": None} for text in texts]
    import pandas as pd

    examples = pd.read_parquet(ESCI / "shopping_queries_dataset_examples.parquet")
    products = pd.read_parquet(ESCI / "shopping_queries_dataset_products.parquet")
    joined = examples[examples["split"] == "test"].merge(products, on=["product_id", "product_locale"]).head(num_pairs)
    renamed = joined.rename(columns={"product_title": "title", "product_brand": "brand"})[["query", "title", "brand"]]
    return "ESCI, test split", renamed.astype(object).where(renamed.notna(), None).to_dict("records")


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_pairs", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    words = parser.parse_args()

    import torch
    from sentence_transformers import CrossEncoder
    from transformers import AutoTokenizer

    from raylib.student.artifact import save_student
    from raylib.student.data import item_text
    from raylib.student.inference import TOKEN_BUDGET, Scorer
    from raylib.student.model import Student, StudentSpec

    source, pairs = read_pairs(words.num_pairs)
    backbone = resolve_model("minilm")
    schema = LabelSchema.load("esci")
    texts = [(pair["query"], item_text(pair, ("title", "brand"))) for pair in pairs]
    calls = {}
    with tempfile.TemporaryDirectory() as folder:
        for extractor in EXTRACTORS:
            student = Student.from_backbone(backbone, StudentSpec(label_schema=schema, extractor=extractor))
            save_student(student, AutoTokenizer.from_pretrained(backbone), f"{folder}/{extractor}")
        for dtype in ("float32", "bfloat16"):
            kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
            peer = CrossEncoder(backbone, num_labels=4, max_length=128, model_kwargs={"dtype": kind}, device="cpu")
            calls["CrossEncoder.predict, batch 32", dtype] = lambda peer=peer: peer.predict(
                texts, batch_size=32, show_progress_bar=False
            )
            for extractor in EXTRACTORS:
                scorer = Scorer(f"{folder}/{extractor}", dtype, "cpu")
                name = f"Scorer, extractor {extractor}"
                calls[name, dtype] = lambda scorer=scorer: scorer.score(pairs)
        lengths_N = scorer.tokenise(pairs).lengths_N
    load_before = os.getloadavg()[0]
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for _ in range(words.repeats):
        for key, call in calls.items():
            started_s = time.perf_counter()
            call()
            seconds[key].append(time.perf_counter() - started_s)
    rows = []
    for (name, dtype), taken_s in seconds.items():
        rates_R = len(pairs) / np.array(taken_s)
        ratios_R = np.array(seconds["CrossEncoder.predict, batch 32", dtype]) / np.array(taken_s)
        rows.append(
            f"| {name} | {dtype} | {np.median(rates_R):.0f} ({rates_R.min():.0f} to {rates_R.max():.0f}) "
            f"| {np.median(ratios_R):.2f} ({ratios_R.min():.2f} to {ratios_R.max():.2f}) |"
        )
    versions = {name: package_versions()[name] for name in ("torch", "transformers", "sentence-transformers")}
    lines = [
        "# Student, offline scoring",
        "",
        f"Pairs: {len(pairs)} of {source}, {lengths_N.mean():.1f} tokens on average (longest {lengths_N.max()}); "
        f"backbone MiniLM-L6; budget {TOKEN_BUDGET['cpu']} tokens a batch; median (and range) of {words.repeats} "
        "alternating rounds.",
        "",
        "| what | precision | pairs/s | times CrossEncoder |",
        "|---|---|---:|---:|",
        *rows,
        "",
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, load before the "
        f"run {load_before:.1f} (other work shares the cores where this is far above 0). Python "
        f"{platform.python_version()}, {', '.join(f'{name} {version}' for name, version in versions.items())}. "
        f"Commit {commit()}. Command: `python -m benchmarks.student_inference --num_pairs {words.num_pairs} "
        f"--repeats {words.repeats}`.",
    ]
    (ROOT / "benchmarks" / "results" / "student_inference.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
