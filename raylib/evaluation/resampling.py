"""Uncertainty: bootstrap intervals that respect queries, and the exact McNemar test.

Pairs of one query are alike (the same query text, the same annotator), so whole queries are drawn, not pairs.
Shape suffixes: N rows, Q queries, B bootstrap replicates, X values a row.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import binom

from raylib.evaluation.inputs import Judged
from raylib.evaluation.metrics import Floats, Ints, accuracy, confusion, macro_f1

LEVEL = 0.95
CHUNK_CELLS = 8_000_000  # replicates x queries held at once: 64 MB


def cluster_sums(values_NX: Floats, query_N: Ints) -> Floats:
    """Sums of the rows of each query, [Q, X]; `query_N` holds any integers, queries come out in ascending order."""
    _, query_N = np.unique(query_N, return_inverse=True)
    sums_QX = np.zeros((int(query_N.max(initial=-1)) + 1, values_NX.shape[1]))
    np.add.at(sums_QX, query_N, values_NX)
    return sums_QX


def cluster_confusions(gold_N: Ints, predicted_N: Ints, query_N: Ints, num_classes: int) -> Floats:
    """One flattened confusion matrix a query, [Q, C * (C + 1)]."""
    _, query_N = np.unique(query_N, return_inverse=True)
    num_queries, width = int(query_N.max(initial=-1)) + 1, num_classes * (num_classes + 1)
    cells_N = gold_N * (num_classes + 1) + np.where(predicted_N < 0, num_classes, predicted_N)
    flat = np.bincount(query_N * width + cells_N, minlength=num_queries * width)
    return flat.reshape(num_queries, width).astype(np.float64)


def resample(sums_QX: Floats, num_bootstrap: int, seed: int) -> Floats:
    """Totals over queries drawn with replacement, [B, X].

    The same seed and number of queries draw the same queries, which pairs the replicates of two models.
    """
    num_queries = len(sums_QX)
    rng = np.random.default_rng(seed)
    chunk = max(1, CHUNK_CELLS // num_queries)
    totals = []
    for start in range(0, num_bootstrap, chunk):
        size = min(chunk, num_bootstrap - start)
        draws_BQ = rng.multinomial(num_queries, np.full(num_queries, 1 / num_queries), size=size)
        totals.append(draws_BQ.astype(np.float64) @ sums_QX)
    return np.concatenate(totals)


def interval(replicates_B: Floats) -> tuple[float, float]:
    """95 % percentile interval; replicates in which the measure is undefined (NaN) are left out."""
    known_B = replicates_B[~np.isnan(replicates_B)]
    if len(known_B) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(known_B, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mean_interval(values_N: Floats, query_N: Ints, num_bootstrap: int, seed: int) -> tuple[float, float]:
    """Interval of the mean over rows of one value a row, clustered by query."""
    sums_QX = cluster_sums(np.stack([values_N, np.ones_like(values_N)], axis=1), query_N)
    totals_BX = resample(sums_QX, num_bootstrap, seed)
    return interval(totals_BX[:, 0] / totals_BX[:, 1])


def confusion_replicates(
    gold_N: Ints, predicted_N: Ints, query_N: Ints, num_classes: int, num_bootstrap: int, seed: int
) -> Floats:
    """Bootstrap replicates of the confusion matrix, [B, C, C + 1]."""
    sums = cluster_confusions(gold_N, predicted_N, query_N, num_classes)
    return resample(sums, num_bootstrap, seed).reshape(num_bootstrap, num_classes, num_classes + 1)


def measured(
    measure: Callable[[Floats], Floats], gold_N: Ints, predicted_N: Ints, num_classes: int, replicates_BCD: Floats
) -> dict[str, float]:
    """A measure of the confusion matrix with its interval: `value`, `low`, `high`."""
    low, high = interval(measure(replicates_BCD))
    return {"value": float(measure(confusion(gold_N, predicted_N, num_classes))), "low": low, "high": high}


def headline(
    judged: Judged, predicted_N: Ints, num_classes: int, num_bootstrap: int, seed: int
) -> dict[str, dict[str, float]]:
    """Accuracy and macro-F1 of predictions [N] (-1: no label, wrong) with their intervals."""
    replicates = confusion_replicates(judged.gold_N, predicted_N, judged.query_N, num_classes, num_bootstrap, seed)
    return {
        "accuracy": measured(accuracy, judged.gold_N, predicted_N, num_classes, replicates),
        "macro_f1": measured(macro_f1, judged.gold_N, predicted_N, num_classes, replicates),
    }


def difference(a_N: Ints, b_N: Ints, judged: Judged, num_classes: int, num_bootstrap: int, seed: int) -> dict[str, Any]:
    """a - b of two models' predictions with clustered paired intervals, and the exact McNemar test."""
    gold_N = judged.gold_N
    replicates_a, replicates_b = (
        confusion_replicates(gold_N, predicted_N, judged.query_N, num_classes, num_bootstrap, seed)
        for predicted_N in (a_N, b_N)
    )
    found: dict[str, Any] = {}
    for measure, name in ((accuracy, "accuracy_difference"), (macro_f1, "macro_f1_difference")):
        value_a, value_b = (float(measure(confusion(gold_N, predicted_N, num_classes))) for predicted_N in (a_N, b_N))
        low, high = interval(measure(replicates_a) - measure(replicates_b))
        found[name] = {"value": value_a - value_b, "low": low, "high": high}
    found["only_a_right"], found["only_b_right"], found["mcnemar_p"] = mcnemar(a_N == gold_N, b_N == gold_N)
    return found


def mcnemar(right_a_N: np.ndarray, right_b_N: np.ndarray) -> tuple[int, int, float]:
    """Exact two-sided McNemar test on two models' correctness of the same rows.

    Returns (rows only a has right, rows only b has right, p). p is the binomial tail at 1/2 doubled and capped at 1;
    1 when the models never differ. It takes rows as independent; the clustered interval beside it does not.
    """
    only_a = int((right_a_N & ~right_b_N).sum())
    only_b = int((~right_a_N & right_b_N).sum())
    if only_a + only_b == 0:
        return 0, 0, 1.0
    return only_a, only_b, float(min(1.0, 2 * binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))
