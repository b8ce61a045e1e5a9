"""Figures of several students, each trained with several seeds, on the same judged pairs.

N pairs, B bootstrap replicates, C classes.
"""

from pathlib import Path
from typing import Any

import numpy as np

from raylib.evaluation import metrics
from raylib.evaluation.baselines import majority, tfidf_logistic_regression
from raylib.evaluation.inputs import Judged, read_ensemble, read_judged
from raylib.evaluation.resampling import confusion_replicates, interval
from raylib.labels import LabelSchema

NUM_BOOTSTRAP = 1000
FIGURES = ("accuracy", "macro_f1")
Predictions = dict[str, list[np.ndarray]]  # student -> for each seed the class of each pair


def read_splits(pairs: Path, schema: LabelSchema) -> tuple[Judged, Judged]:
    """Judged train and test pairs."""
    judged, _ = read_judged(str(pairs), schema)
    train, test = (judged.where(judged.column("split") == split) for split in ("train", "test"))
    return train, test


def baselines(train: Judged, test: Judged, num_classes: int) -> Predictions:
    """What a student must beat."""
    return {
        "majority class": [majority(train.gold_N, len(test), num_classes).argmax(1)],
        "TF-IDF + logistic regression": [tfidf_logistic_regression(train, test, num_classes).argmax(1)],
    }


def predictions(
    work: Path, parts: dict[str, list[str]], seeds: list[int], test: Judged, num_classes: int
) -> Predictions:
    """Classes by student and seed, from the scores in WORK/STAGE-SEED; of several stages their mean probabilities."""
    return {
        name: [
            read_ensemble([str(work / f"{stage}-{seed}") for stage in stages], test, num_classes)[0].argmax(1)
            for seed in seeds
        ]
        for name, stages in parts.items()
    }


def measure(predicted: Predictions, test: Judged, num_classes: int, reference: str | None) -> dict[str, Any]:
    """Mean over seeds of accuracy and macro-F1, and what is above the student `reference`, each with its interval.

    The same queries are drawn for all seeds and students, so that differences are paired.
    """
    found = {
        name: {figure: _mean(figure, by, test, num_classes) for figure in FIGURES} for name, by in predicted.items()
    }
    if reference:
        for name, row in found.items():
            if name != reference:
                row |= {f"{figure}_minus": _difference(row[figure], found[reference][figure]) for figure in FIGURES}
    for row in found.values():
        for figure in row.values():
            figure.pop("replicates", None)
    return found


def _mean(figure: str, by: list[np.ndarray], test: Judged, num_classes: int) -> dict[str, Any]:
    function = getattr(metrics, figure)
    values = [float(function(metrics.confusion(test.gold_N, found_N, num_classes))) for found_N in by]
    replicates = [
        function(confusion_replicates(test.gold_N, found_N, test.query_N, num_classes, NUM_BOOTSTRAP, 0))
        for found_N in by
    ]
    mean_B = np.mean(replicates, axis=0)
    low, high = interval(mean_B)
    return {"value": float(np.mean(values)), "low": low, "high": high, "by_seed": values, "replicates": mean_B}


def _difference(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    low, high = interval(one["replicates"] - other["replicates"])
    by_seed = [value - other["by_seed"][n % len(other["by_seed"])] for n, value in enumerate(one["by_seed"])]
    return {"value": one["value"] - other["value"], "low": low, "high": high, "by_seed": by_seed}


def shown(found: dict[str, Any] | None) -> str:
    """Value, interval and, of several seeds, the range over them, all in %."""
    if found is None:
        return ""
    text = f"{100 * found['value']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"
    if len(found["by_seed"]) > 1:
        text += f" ({100 * min(found['by_seed']):.1f} to {100 * max(found['by_seed']):.1f})"
    return text
