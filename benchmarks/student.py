"""The students of the papers, trained on the same pairs with several seeds, on a market and on real logs.

    python -m benchmarks.student --work DIR --seeds 1 2 3 4 5
    python -m benchmarks.student --work DIR --seeds 1 2 3 --name esci --pairs RUN --rationales RUN \\
        --label_schema esci --num_epochs 6 --students bert lrkd_gat crsd

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

from benchmarks.provenance import describe, provenance

ROOT = Path(__file__).parent.parent
NUM_BOOTSTRAP = 1000
ZEROED = "lrkd_gat"  # the student whose latent is also set to zero after training
Predictions = dict[str, list[np.ndarray]]  # student -> for each seed the class of each test pair


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
    given = {"@prepare": words.pairs, "@annotate": words.rationales} if words.pairs else {}
    stages = []
    for stage in content["stages"]:
        settings = {name: _given(value, given) for name, value in stage["settings"].items()}
        if stage["job"] == "distill" and stage["name"] in wanted:
            settings |= {"label_schema": words.label_schema, "num_epochs": words.num_epochs}
            stages += [
                {**stage, "name": f"{stage['name']}-{seed}", "settings": {**settings, "seed": seed}}
                for seed in words.seeds
            ]
        elif stage["job"] == "embed" or (not words.pairs and stage["job"] in ("market", "prepare", "annotate")):
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


def measure(pairs: Path, parts: dict[str, list[str]], words: argparse.Namespace) -> dict[str, Any]:
    """Accuracy and macro-F1 on test by student and by baseline, and their differences to BERT alone."""
    from raylib.evaluation.baselines import majority, tfidf_logistic_regression
    from raylib.evaluation.inputs import read_ensemble, read_judged
    from raylib.labels import LabelSchema

    schema = LabelSchema.load(words.label_schema)
    num_classes = len(schema.names)
    judged, _ = read_judged(str(pairs), schema)
    train, test = (judged.where(judged.column("split") == split) for split in ("train", "test"))
    predicted: Predictions = {
        "majority class": [majority(train.gold_N, len(test), num_classes).argmax(1)],
        "TF-IDF + logistic regression": [tfidf_logistic_regression(train, test, num_classes).argmax(1)],
    }
    for name, stages in parts.items():
        predicted[name] = []
        for seed in words.seeds:
            uris = [str(words.work / f"{stage}-{seed}") for stage in stages]
            predicted[name].append(read_ensemble(uris, test, num_classes)[0].argmax(1))
        if stages == [ZEROED]:
            rows = test.table.to_pylist()
            models = [words.work / f"{ZEROED}-{seed}" / "model" for seed in words.seeds]
            predicted[f"{name}, latent zeroed at inference"] = [without_latent(model, rows) for model in models]
    replicates = {name: [_replicates(test, found_N, num_classes) for found_N in by] for name, by in predicted.items()}
    alone = next((name for name, stages in parts.items() if stages == ["bert"]), None)
    rows_of: dict[str, Any] = {}
    for name, by in predicted.items():
        row: dict[str, Any] = {"num_seeds": len(by)}
        for figure in ("accuracy", "macro_f1"):
            row[figure] = _mean(figure, test, by, replicates[name], num_classes)
            if alone and name not in (alone, *list(predicted)[:2]):
                other = _mean(figure, test, predicted[alone], replicates[alone], num_classes)
                row[f"{figure}_minus_bert"] = _difference(row[figure], other)
        rows_of[name] = row
    for row in rows_of.values():
        for figure in ("accuracy", "macro_f1"):
            del row[figure]["replicates"]
    return {
        "students": rows_of,
        "num_test_pairs": len(test),
        "num_test_queries": len(np.unique(test.query_N)),
        "num_train_pairs": len(train),
    }


def _replicates(test: Any, found_N: np.ndarray, num_classes: int) -> np.ndarray:
    """Confusion matrices [B, C, C + 1] of the same draws of queries for every student and seed."""
    from raylib.evaluation.resampling import confusion_replicates

    return confusion_replicates(test.gold_N, found_N, test.query_N, num_classes, NUM_BOOTSTRAP, 0)


def _mean(figure: str, test: Any, by: list[np.ndarray], replicates: list[np.ndarray], num_classes: int) -> Any:
    """A figure's mean over seeds with its interval, and each seed's value."""
    from raylib.evaluation import metrics
    from raylib.evaluation.resampling import interval

    function = getattr(metrics, figure)
    values = [float(function(metrics.confusion(test.gold_N, found_N, num_classes))) for found_N in by]
    mean_B = np.mean([function(one) for one in replicates], axis=0)
    low, high = interval(mean_B)
    return {"value": float(np.mean(values)), "low": low, "high": high, "by_seed": values, "replicates": mean_B}


def _difference(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    from raylib.evaluation.resampling import interval

    low, high = interval(one["replicates"] - other["replicates"])
    by_seed = [a - b for a, b in zip(one["by_seed"], other["by_seed"], strict=True)]
    return {"value": one["value"] - other["value"], "low": low, "high": high, "by_seed": by_seed}


def main() -> None:
    """Train the students and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="directory for the runs; finished ones are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--name", default="market", help="of the result file")
    parser.add_argument("--pairs", help="run directory of jobs.prepare instead of the market's")
    parser.add_argument("--rationales", help="run directory of jobs.annotate: unified and the three perspectives")
    parser.add_argument("--label_schema", default="marketplace6")
    parser.add_argument("--num_epochs", type=int, default=4)
    parser.add_argument("--students", nargs="*", help="stages of configs/students.yaml to train; all when not given")
    words = parser.parse_args()
    if (words.pairs is None) != (words.rationales is None):
        parser.error("--pairs and --rationales go together")
    from raylib.ray_session import ray_session

    with ray_session():
        pairs, parts, stages = run_students(words)
    trained = {name: found for name, found in stages.items() if found["job"] == "distill"}
    chosen = f" --students {' '.join(words.students)}" if words.students else ""
    where = f" --pairs RUN --rationales RUN --label_schema {words.label_schema}" if words.pairs else ""
    record = {
        **provenance(
            f"python -m benchmarks.student --work DIR --seeds {' '.join(map(str, words.seeds))} --name {words.name}"
            f"{where} --num_epochs {words.num_epochs}{chosen}"
        ),
        "seeds": words.seeds,
        **measure(pairs, parts, words),
        "dev": {name: found["dev"] for name, found in trained.items()},
        "guided": {name: found["guidance"] for name, found in trained.items() if "guidance" in found},
        "seconds": {name: found["stage_s"] for name, found in trained.items()},
    }
    path = ROOT / "benchmarks" / "results" / f"student_{words.name}"
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    path.with_suffix(".md").write_text(report(record))
    print(path.with_suffix(".md").read_text())


def report(record: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "# Students compared",
        "",
        describe(record, "ray", "torch", "transformers", "sentence-transformers"),
        f"{record['num_train_pairs']:,} train pairs, {record['num_test_pairs']:,} test pairs of "
        f"{record['num_test_queries']} queries, MiniLM, seeds {', '.join(map(str, record['seeds']))}. Mean over "
        "seeds in %, interval by query, in brackets behind it the lowest and highest seed.",
        "",
        "| student | accuracy | macro-F1 | macro-F1 minus BERT's, points |",
        "|---|---|---|---|",
    ]
    for name, row in record["students"].items():
        minus = row.get("macro_f1_minus_bert")
        cells = [_measure(found) if found else "" for found in (row["accuracy"], row["macro_f1"], minus)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _measure(found: dict[str, Any]) -> str:
    """Value, interval and range over seeds, all in %."""
    text = f"{100 * found['value']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"
    if len(found["by_seed"]) > 1:
        text += f" ({100 * min(found['by_seed']):.1f} to {100 * max(found['by_seed']):.1f})"
    return text


if __name__ == "__main__":
    main()
