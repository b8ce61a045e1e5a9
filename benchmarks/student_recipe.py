"""Choose the student's training recipe on the dev split: runs of jobs.distill, BERT alone.

    python -m benchmarks.student_recipe --pairs RUN --label_schema esci --work DIR --recipes 1e-4:3:none 2e-4:3:none

Nothing here reads the test split's figures: the table has dev accuracy and dev macro-F1 of the best epoch. Students
that are finished in DIR are not trained again.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from benchmarks.provenance import describe, provenance, write_result

RESULTS = Path(__file__).parent / "results"


def train(
    words: argparse.Namespace, learning_rate: float, num_epochs: int, class_weights: str | None
) -> dict[str, Any]:
    """Train one student; returns its recipe and what dev says."""
    from jobs.distill import DistillConfig, run

    recipe = {"learning_rate": learning_rate, "num_epochs": num_epochs, "class_weights": class_weights}
    name = f"lr{learning_rate:g}-epochs{num_epochs}-{class_weights or 'plain'}"
    settings = {
        "output": f"{words.work}/{name}",
        "pairs": words.pairs,
        "label_schema": words.label_schema,
        "objective": "bert",
        "extractor": "none",
        "global_batch": words.global_batch,
        "max_length": words.max_length,
        "dtype": "bfloat16",
        "workers": {"num_workers": 1, "cpus_per_worker": os.cpu_count()},
        **recipe,
    }
    metrics = run(DistillConfig.from_mapping(settings, "benchmark"))
    return {**recipe, "dev": metrics["dev"], "epochs": metrics["epochs"], "wall_s": round(metrics["wall_s"])}


def main() -> None:
    """Train the grid and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", required=True, help="run directory of jobs.prepare")
    parser.add_argument("--label_schema", default="esci")
    parser.add_argument("--work", required=True, help="directory for the students")
    parser.add_argument("--recipes", nargs="+", required=True, help="learning rate:epochs:class weights or none")
    parser.add_argument("--global_batch", type=int, default=32)
    parser.add_argument("--max_length", type=int, default=128)
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
            f"--recipes {' '.join(words.recipes)}"
        ),
        "global_batch": words.global_batch,
        "max_length": words.max_length,
        "rows": rows,
    }
    path = RESULTS / f"student_recipe_{Path(words.label_schema).stem}"
    write_result(path, record, report(record))


def report(record: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "# The student's recipe, chosen on dev",
        "",
        describe(record, "ray", "torch", "transformers"),
        f"MiniLM, BERT alone, batch {record['global_batch']}, {record['max_length']} tokens. Figures are those of the "
        "best epoch on dev, in %.",
        "",
        "| learning rate | epochs | class weights | dev accuracy | dev macro-F1 | best epoch | wall s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(record["rows"], key=lambda row: -row["dev"]["macro_f1"]):
        best = max(range(len(row["epochs"])), key=lambda number: row["epochs"][number]["dev_macro_f1"]) + 1
        lines.append(
            f"| {row['learning_rate']:g} | {row['num_epochs']} | {row['class_weights'] or 'none'} "
            f"| {100 * row['dev']['accuracy']:.1f} | {100 * row['dev']['macro_f1']:.1f} | {best} | {row['wall_s']} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
