"""What the report says of a model that answers each pair with one class: students and baselines alike."""

from itertools import combinations
from typing import Any

import numpy as np

from raylib import tables
from raylib.evaluation.inputs import Judged
from raylib.evaluation.metrics import (
    Floats,
    Ints,
    calibration_error,
    confusion,
    log_loss,
    per_class_recall,
    reliability,
)
from raylib.evaluation.resampling import difference, headline


def summarize(
    probs_NC: Floats, judged: Judged, names: tuple[str, ...], num_bootstrap: int, seed: int
) -> dict[str, Any]:
    """Headline measures with intervals, confusion matrix, calibration and slices of one model."""
    gold_N, predicted_N = judged.gold_N, probs_NC.argmax(axis=1)
    bins = reliability(probs_NC, gold_N)
    return {
        "num_pairs": len(judged),
        **headline(judged, predicted_N, len(names), num_bootstrap, seed),
        "per_class_recall": _by_name(names, per_class_recall(confusion(gold_N, predicted_N, len(names)))),
        "confusion": confusion(gold_N, predicted_N, len(names))[:, :-1].astype(int).tolist(),
        "calibration_error": calibration_error(bins),
        "log_loss": log_loss(probs_NC, gold_N),
        "reliability": bins.tolist(),
        "slices": _slices(predicted_N, judged, names, num_bootstrap, seed),
    }


def compare(probs: dict[str, Floats], judged: Judged, num_bootstrap: int, seed: int) -> list[dict[str, Any]]:
    """Each pair of models, the later one as a."""
    predicted = {name: probs_NC.argmax(axis=1) for name, probs_NC in probs.items()}
    num_classes = next(iter(probs.values())).shape[1]
    return [
        {"a": a, "b": b, **difference(predicted[a], predicted[b], judged, num_classes, num_bootstrap, seed)}
        for b, a in combinations(probs, 2)
    ]


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
            measures = headline(judged.where(mask_N), predicted_N[mask_N], len(names), num_bootstrap, seed)
            if kind == "class":
                del measures["macro_f1"]  # with one gold class it says nothing that recall does not
            num_queries = len(np.unique(judged.query_N[mask_N]))
            slices[kind][value] = {"num_pairs": int(mask_N.sum()), "num_queries": num_queries, **measures}
    return slices


def _by_name(names: tuple[str, ...], values_C: Floats) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values_C, strict=True)}
