"""Choose the student's training recipe on the dev split: runs of jobs.distill, BERT alone.

    python -m benchmarks.student_recipe --pairs RUN --label_schema esci --work DIR --recipes 1e-4:3:none 2e-4:3:none
    python -m benchmarks.student_recipe ... --backbone RUN/model --seeds 0 1 --name esci_matching

Nothing here reads the test split's figures: the table has dev accuracy and dev macro-F1 of the best epoch. Students
that are finished in DIR are not trained again.
"""

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

from benchmarks.provenance import describe, provenance, write_result

RESULTS = Path(__file__).parent / "results"


def train(
    words: argparse.Namespace, learning_rate: float, num_epochs: int, class_weights: str | None
) -> dict[str, Any]:
    """Train one student a seed; returns the recipe and what dev says, means over the seeds."""
    recipe = {"learning_rate": learning_rate, "num_epochs": num_epochs, "class_weights": class_weights}
    found = [_train(words, recipe, seed) for seed in words.seeds]
    dev = {name: statistics.fmean(one["dev"][name] for one in found) for name in ("accuracy", "macro_f1")}
    best = [
        max(range(len(one["epochs"])), key=lambda number: one["epochs"][number]["dev_macro_f1"]) + 1 for one in found
    ]
    return {**recipe, "dev": dev, "best_epochs": best, "wall_s": [round(one["wall_s"]) for one in found]}


def _train(words: argparse.Namespace, recipe: dict[str, Any], seed: int) -> dict[str, Any]:
    from jobs.distill import DistillConfig, run

    name = f"lr{recipe['learning_rate']:g}-epochs{recipe['num_epochs']}-{recipe['class_weights'] or 'plain'}-{seed}"
    settings = {
        "output": f"{words.work}/{name}",
        "pairs": words.pairs,
        "label_schema": words.label_schema,
        "objective": "bert",
        "extractor": "none",
        "global_batch": words.global_batch,
        "max_length": words.max_length,
        "backbone": words.backbone,
        "item_fields": words.item_fields,
        "seed": seed,
        "dtype": "bfloat16",
        "workers": {"num_workers": 1, "cpus_per_worker": os.cpu_count()},
        **recipe,
    }
    return run(DistillConfig.from_mapping(settings, "benchmark"))


def main() -> None:
    """Train the grid and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", required=True, help="run directory of jobs.prepare")
    parser.add_argument("--label_schema", default="esci")
    parser.add_argument("--work", required=True, help="directory for the students")
    parser.add_argument("--recipes", nargs="+", required=True, help="learning rate:epochs:class weights or none")
    parser.add_argument("--global_batch", type=int, default=32)
    parser.add_argument("--max_length", type=int, default=128)
    parser.add_argument("--backbone", default="minilm", help="encoder, or `model` of a distill run")
    parser.add_argument("--item_fields", nargs="+", default=["title", "brand"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--name", help="of the result file; the label schema when not given")
    words = parser.parse_args()
    from raylib.ray_session import ray_session

    rows = []
    with ray_session():
        for recipe in words.recipes:
            rate, num_epochs, weights = recipe.split(":")
            rows.append(train(words, float(rate), int(num_epochs), None if weights == "none" else weights))
            print(
                {name: rows[-1][name] for name in ("learning_rate", "num_epochs", "class_weights", "dev")}, flush=True
            )
    record = {
        **provenance(
            f"python -m benchmarks.student_recipe --pairs RUN --label_schema {words.label_schema} --work DIR "
            f"--backbone {'minilm' if words.backbone == 'minilm' else 'RUN/model'} "
            f"--item_fields {' '.join(words.item_fields)} --seeds {' '.join(map(str, words.seeds))} "
            f"--recipes {' '.join(words.recipes)}"
        ),
        "backbone": "MiniLM" if words.backbone == "minilm" else "An earlier student's encoder",
        "global_batch": words.global_batch,
        "max_length": words.max_length,
        "rows": rows,
    }
    path = RESULTS / f"student_recipe_{words.name or Path(words.label_schema).stem}"
    write_result(path, record, report(record))


def report(record: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "# The student's recipe, chosen on dev",
        "",
        describe(record, "ray", "torch", "transformers"),
        f"{record['backbone']}, BERT alone, batch {record['global_batch']}, {record['max_length']} tokens. Figures "
        "are those of the best epoch on dev, in %, means over seeds.",
        "",
        "| learning rate | epochs | class weights | dev accuracy | dev macro-F1 | best epoch | wall s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(record["rows"], key=lambda row: -row["dev"]["macro_f1"]):
        lines.append(
            f"| {row['learning_rate']:g} | {row['num_epochs']} | {row['class_weights'] or 'none'} "
            f"| {100 * row['dev']['accuracy']:.1f} | {100 * row['dev']['macro_f1']:.1f} "
            f"| {', '.join(map(str, row['best_epochs']))} | {', '.join(map(str, row['wall_s']))} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
