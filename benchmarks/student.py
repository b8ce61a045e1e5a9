"""The students of the papers, trained on the same pairs with several seeds, on a market and on real logs.

    python -m benchmarks.student --work DIR --seeds 1 2 3 4 5
    python -m benchmarks.student --work DIR --seeds 1 2 3 --name esci --pairs RUN --rationales RUN \\
        --label_schema esci --num_epochs 3 --learning_rate 5e-5 --backbone RUN/model --students bert lrkd_gat --peer

Runs configs/students.yaml; with `--pairs` and `--rationales` on those runs instead of its market. Seeds change the
student's initial weights, order and dropout; the pairs and the rationales stay. Figures are means over seeds on the
test split with intervals (95 %, queries drawn anew, the same for all seeds and students); nothing is chosen here.
Students that are finished in DIR are not trained again. Writes benchmarks/results/student_NAME.{md,json}.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import student_peer
from benchmarks.provenance import describe, provenance, write_result
from benchmarks.student_measure import baselines, measure, predictions, read_splits, shown
from raylib.labels import LabelSchema

ROOT = Path(__file__).parent.parent
RECIPE = ("label_schema", "num_epochs", "learning_rate", "backbone")
ZEROED = "lrkd_gat"  # the student whose latent is also set to zero after training


def run_students(words: argparse.Namespace) -> tuple[Path, dict[str, list[str]], dict[str, Any]]:
    """Train what is missing; returns the run of prepare, the evaluated students' stages, and every stage's metrics."""
    from jobs.pipeline import PipelineConfig, run
    from raylib.config import read_yaml

    content = read_yaml(ROOT / "configs" / "students.yaml")
    (judge,) = (stage["settings"] for stage in content["stages"] if stage["job"] == "evaluate")
    parts = {name: [uris] if isinstance(uris, str) else uris for name, uris in judge["students"].items()}
    parts = {name: [uri.removeprefix("@") for uri in uris] for name, uris in parts.items()}
    if words.students:
        parts = {name: stages for name, stages in parts.items() if set(stages) <= set(words.students)}
    wanted = {stage for stages in parts.values() for stage in stages}
    named = json.dumps([stage["settings"] for stage in content["stages"] if stage["name"] in wanted])
    given = {"@prepare": words.pairs, "@annotate": words.rationales} if words.pairs else {}
    stages = []
    for stage in content["stages"]:
        settings = {name: _given(value, given) for name, value in stage["settings"].items()}
        if stage["job"] == "distill" and stage["name"] in wanted:
            settings |= {name: getattr(words, name) for name in RECIPE}
            stages += [
                {**stage, "name": f"{stage['name']}-{seed}", "settings": {**settings, "seed": seed}}
                for seed in words.seeds
            ]
        elif stage["job"] == "embed":
            if f'"@{stage["name"]}"' in named:
                stages.append({**stage, "settings": settings})
        elif not words.pairs and stage["job"] in ("market", "prepare", "annotate"):
            stages.append({**stage, "settings": settings})
    summary = run(PipelineConfig.from_mapping({"output": str(words.work), "stages": stages}, "students"))
    return Path(words.pairs or words.work / "prepare"), parts, summary["stages"]


def _given(value: Any, given: dict[str, str]) -> Any:
    """A setting with references to stages replaced by the runs that stand in their place."""
    if isinstance(value, dict):
        return {name: _given(inner, given) for name, inner in value.items()}
    return given.get(value, value) if isinstance(value, str) else value


def without_latent(model: Path, rows: list[dict[str, Any]]) -> np.ndarray:
    """Classes [N] of pairs by a trained student whose head no longer sees the latent."""
    import torch

    from raylib.student.inference import Scorer

    scorer = Scorer(model)
    with torch.no_grad():
        scorer.student.head.weight[:, -scorer.student.latent_size :] = 0.0
    return scorer.score(rows).argmax(1)


def main() -> None:
    """Train the students and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="directory for the runs; finished ones are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--name", default="market", help="of the result file")
    parser.add_argument("--pairs", help="run directory of jobs.prepare instead of the market's")
    parser.add_argument("--rationales", help="run directory of jobs.annotate with the perspectives that students take")
    parser.add_argument("--label_schema", default="marketplace6")
    parser.add_argument("--num_epochs", type=int, default=4)
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--backbone", default="minilm", help="encoder, or `model` of a distill run")
    parser.add_argument("--students", nargs="*", help="stages of configs/students.yaml to train; all when not given")
    parser.add_argument("--peer", action="store_true", help="also train sentence-transformers' CrossEncoder")
    words = parser.parse_args()
    if (words.pairs is None) != (words.rationales is None):
        parser.error("--pairs and --rationales go together")
    from raylib.ray_session import ray_session

    with ray_session():
        pairs, parts, stages = run_students(words)
    schema = LabelSchema.load(words.label_schema)
    num_classes = len(schema.names)
    train, test = read_splits(pairs, schema)
    predicted = {
        **baselines(train, test, num_classes),
        **predictions(words.work, parts, words.seeds, test, num_classes),
    }
    if words.peer:
        files = {seed: words.work / "cross_encoder" / f"{seed}.npy" for seed in words.seeds}
        predicted[student_peer.TITLE] = [
            student_peer.classes(train, test, schema, seed, file) for seed, file in files.items()
        ]
    for name in [name for name, stages_of in parts.items() if stages_of == [ZEROED]]:
        models = [words.work / f"{ZEROED}-{seed}" / "model" for seed in words.seeds]
        rows = test.table.to_pylist()
        predicted[f"{name}, latent zeroed at inference"] = [without_latent(model, rows) for model in models]
    alone = next((name for name, stages_of in parts.items() if stages_of == ["bert"]), None)
    trained = {name: found for name, found in stages.items() if found["job"] == "distill"}
    chosen = f" --students {' '.join(words.students)}" if words.students else ""
    where = f" --pairs RUN --rationales RUN --label_schema {words.label_schema}" if words.pairs else ""
    record = {
        **provenance(
            f"python -m benchmarks.student --work DIR --seeds {' '.join(map(str, words.seeds))} --name {words.name}"
            f"{where} --num_epochs {words.num_epochs} --learning_rate {words.learning_rate:g}"
            f"{'' if words.backbone == 'minilm' else ' --backbone RUN/model'}{chosen}{' --peer' if words.peer else ''}"
        ),
        "backbone": "MiniLM" if words.backbone == "minilm" else "an earlier student's encoder",
        "seeds": words.seeds,
        "num_train_pairs": len(train),
        "num_test_pairs": len(test),
        "num_test_queries": len(np.unique(test.query_N)),
        "students": measure(predicted, test, num_classes, alone),
        "dev": {name: found["dev"] for name, found in trained.items()},
        "guided": {name: found["guidance"] for name, found in trained.items() if "guidance" in found},
        "seconds": {name: found["stage_s"] for name, found in trained.items()},
    }
    path = ROOT / "benchmarks" / "results" / f"student_{words.name}"
    write_result(path, record, report(record))


def report(record: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "# Students compared",
        "",
        describe(record, "ray", "torch", "transformers", "sentence-transformers"),
        f"{record['num_train_pairs']:,} train pairs, {record['num_test_pairs']:,} test pairs of "
        f"{record['num_test_queries']} queries, {record['backbone']}, seeds {', '.join(map(str, record['seeds']))}. "
        "Mean over seeds in %, interval by query, in brackets behind it the lowest and highest seed.",
        "",
        "| student | accuracy | macro-F1 | macro-F1 minus BERT's, points |",
        "|---|---|---|---|",
    ]
    for name, row in record["students"].items():
        cells = [shown(row.get(figure)) for figure in ("accuracy", "macro_f1", "macro_f1_minus")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
