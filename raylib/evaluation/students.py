"""What the report says of a model that answers each pair with one class: students and baselines alike."""

from itertools import combinations
from typing import Any

import numpy as np

from raylib import tables
from raylib.evaluation.inputs import Judged
from raylib.evaluation.metrics import (
    Floats,
    Ints,
    accuracy,
    calibration_error,
    confusion,
    log_loss,
    macro_f1,
    per_class_recall,
    reliability,
)
from raylib.evaluation.resampling import confusion_replicates, interval, mcnemar, measured


def summarize(
    probs_NC: Floats, judged: Judged, names: tuple[str, ...], num_bootstrap: int, seed: int
) -> dict[str, Any]:
    """Headline measures with intervals, confusion matrix, calibration and slices of one model."""
    gold_N, predicted_N = judged.gold_N, probs_NC.argmax(axis=1)
    bins = reliability(probs_NC, gold_N)
    return {
        "num_pairs": len(judged),
        **_headline(gold_N, predicted_N, judged.query_N, len(names), num_bootstrap, seed),
        "per_class_recall": _by_name(names, per_class_recall(confusion(gold_N, predicted_N, len(names)))),
        "confusion": confusion(gold_N, predicted_N, len(names))[:, :-1].astype(int).tolist(),
        "calibration_error": calibration_error(bins),
        "log_loss": log_loss(probs_NC, gold_N),
        "reliability": bins.tolist(),
        "slices": _slices(predicted_N, judged, names, num_bootstrap, seed),
    }


def compare(probs: dict[str, Floats], judged: Judged, num_bootstrap: int, seed: int) -> list[dict[str, Any]]:
    """Each pair of models, the later one as a: a - b with clustered paired intervals, and the exact McNemar test."""
    predicted = {name: probs_NC.argmax(axis=1) for name, probs_NC in probs.items()}
    num_classes = next(iter(probs.values())).shape[1]
    replicates = {
        name: confusion_replicates(judged.gold_N, predicted_N, judged.query_N, num_classes, num_bootstrap, seed)
        for name, predicted_N in predicted.items()
    }
    rows = []
    for b, a in combinations(probs, 2):
        row: dict[str, Any] = {"a": a, "b": b}
        for measure, name in ((accuracy, "accuracy_difference"), (macro_f1, "macro_f1_difference")):
            value = [float(measure(confusion(judged.gold_N, predicted[model], num_classes))) for model in (a, b)]
            low, high = interval(measure(replicates[a]) - measure(replicates[b]))
            row[name] = {"value": value[0] - value[1], "low": low, "high": high}
        right_a, right_b = predicted[a] == judged.gold_N, predicted[b] == judged.gold_N
        row["only_a_right"], row["only_b_right"], row["mcnemar_p"] = mcnemar(right_a, right_b)
        rows.append(row)
    return rows


def _headline(
    gold_N: Ints, predicted_N: Ints, query_N: Ints, num_classes: int, num_bootstrap: int, seed: int
) -> dict[str, dict[str, float]]:
    replicates = confusion_replicates(gold_N, predicted_N, query_N, num_classes, num_bootstrap, seed)
    return {
        "accuracy": measured(accuracy, gold_N, predicted_N, num_classes, replicates),
        "macro_f1": measured(macro_f1, gold_N, predicted_N, num_classes, replicates),
    }


def _slices(predicted_N: Ints, judged: Judged, names: tuple[str, ...], num_bootstrap: int, seed: int) -> dict[str, Any]:
    """Measures by locale, by traffic segment and by gold class, where accuracy is the class's recall."""
    locale_N = judged.column("locale")
    masks = {
        "locale": {locale: locale_N == locale for locale in sorted(set(locale_N))},
        "traffic": {name: judged.segment_N == i for i, name in enumerate(tables.SEGMENTS)},
        "class": {name: judged.gold_N == i for i, name in enumerate(names)},
    }
    slices: dict[str, Any] = {}
    for kind, by_value in masks.items():
        slices[kind] = {}
        for value, mask_N in by_value.items():
            if not mask_N.any():
                continue
            measures = _headline(
                judged.gold_N[mask_N], predicted_N[mask_N], judged.query_N[mask_N], len(names), num_bootstrap, seed
            )
            if kind == "class":
                del measures["macro_f1"]  # with one gold class it says nothing that recall does not
            num_queries = len(np.unique(judged.query_N[mask_N]))
            slices[kind][value] = {"num_pairs": int(mask_N.sum()), "num_queries": num_queries, **measures}
    return slices


def _by_name(names: tuple[str, ...], values_C: Floats) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values_C, strict=True)}
