"""What the report says of a teacher, from its rationales: how good, and how different, the perspectives are.

The pilot of arXiv 2601.21611 compares a single perspective (64.61 % accuracy), the same perspective with three tries
(pass@3, 72.59 %) and the oracle over three perspectives (77.52 %). It does not say how its samples were spent; we
compare equal numbers of tries: the oracle draws one answer from each of K perspectives, pass@K draws K answers from
one. Both are expectations over all samples present, so neither depends on which sample came first.

Shape suffixes: N pairs, A answers, K perspectives.
"""

from collections import Counter
from typing import Any

import numpy as np

from raylib.evaluation.inputs import Answers, Judged
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
from raylib.evaluation.resampling import confusion_replicates, headline, mean_interval, measured
from raylib.evaluation.votes import ALL, Vote, agreement, perspective_votes
from raylib.prompts import UNIFIED


def pass_at_k(num_right_N: Ints, num_tries_N: Ints, k: int) -> Floats:
    """Probability [N] that k answers drawn without replacement hold a right one; NaN where there are fewer than k.

    The unbiased estimator 1 - C(n - c, k) / C(n, k) of Chen et al. 2021 (arXiv 2107.03374), as a product.
    """
    miss_N = np.ones(len(num_right_N))
    for i in range(k):
        left_N = np.maximum(num_tries_N - i, 1)
        miss_N *= np.clip((num_tries_N - num_right_N - i) / left_N, 0.0, 1.0)
    return np.where(num_tries_N >= k, 1.0 - miss_N, np.nan)


def oracle(num_right_NK: Ints, num_tries_NK: Ints) -> Floats:
    """Probability [N] that one answer drawn from each perspective makes at least one right; NaN where one has none."""
    rate_NK = np.where(num_tries_NK > 0, num_right_NK / np.maximum(num_tries_NK, 1), np.nan)
    missed_N: Floats = np.prod(1.0 - rate_NK, axis=1)
    return 1.0 - missed_N


def summarize_teacher(
    answers: Answers, judged: Judged, names: tuple[str, ...], num_bootstrap: int, seed: int
) -> dict[str, Any]:
    """Quantities of one teacher by split: `{split: {perspective: {...}}, ...}`, oracle and pass@K beside them.

    A split without answers is absent. The splits stay apart because a teacher may have learnt from one of them.
    """
    split_N = judged.column("split")
    return {
        split: _summarize_split(answers, judged, split_N == split, names, num_bootstrap, seed)
        for split in sorted(set(split_N[answers.row_A]))
    }


def _summarize_split(
    answers: Answers, judged: Judged, in_split_N: np.ndarray, names: tuple[str, ...], num_bootstrap: int, seed: int
) -> dict[str, Any]:
    in_split_A = in_split_N[answers.row_A]
    found = {
        name: in_split_A & (answers.perspective_A == name) for name in sorted(set(answers.perspective_A[in_split_A]))
    }
    votes = perspective_votes(answers, in_split_N, len(names))
    summary: dict[str, Any] = {
        "num_pairs": len(np.unique(answers.row_A[in_split_A])),
        "num_answers": int(in_split_A.sum()),
        "perspectives": {
            name: {
                **_perspective(answers, mask_A, judged, names, num_bootstrap, seed),
                "vote": _vote(votes[name], judged, names, num_bootstrap, seed),
                "calibration": _calibration(answers, mask_A, judged),
            }
            for name, mask_A in found.items()
        },
        "agreement": agreement(votes, len(names)),
    }
    if ALL in votes:
        summary["vote_of_all"] = _vote(votes[ALL], judged, names, num_bootstrap, seed)
    singles = [name for name in found if name != UNIFIED]
    if len(singles) >= 2:
        summary["together"] = _together(answers, judged, {name: found[name] for name in singles}, num_bootstrap, seed)
    return summary


def _perspective(
    answers: Answers, mask_A: np.ndarray, judged: Judged, names: tuple[str, ...], num_bootstrap: int, seed: int
) -> dict[str, Any]:
    """Accuracy is the mean over samples: each answer counts once."""
    row_A, predicted_A = answers.row_A[mask_A], answers.predicted_A[mask_A]
    gold_A, query_A = judged.gold_N[row_A], judged.query_N[row_A]
    replicates = confusion_replicates(gold_A, predicted_A, query_A, len(names), num_bootstrap, seed)
    num_right_N, num_tries_N = _tries(answers, mask_A, judged)
    has_tries_N = num_tries_N > 0
    num_tries_N, num_right_N = num_tries_N[has_tries_N], num_right_N[has_tries_N]
    recall_C = per_class_recall(confusion(gold_A, predicted_A, len(names)))
    return {
        "num_pairs": int(has_tries_N.sum()),
        "num_answers": int(mask_A.sum()),
        "accuracy": measured(accuracy, gold_A, predicted_A, len(names), replicates),
        "macro_f1": measured(macro_f1, gold_A, predicted_A, len(names), replicates),
        "pass_at": {
            str(k): float(pass_at_k(num_right_N, num_tries_N, k).mean()) for k in range(1, int(num_tries_N.min()) + 1)
        },
        "per_class_recall": {name: float(value) for name, value in zip(names, recall_C, strict=True)},
        "errors": dict(Counter(error for error in answers.error_A[mask_A] if error).most_common()),
    }


def _vote(vote: Vote, judged: Judged, names: tuple[str, ...], num_bootstrap: int, seed: int) -> dict[str, Any]:
    asked = judged.where(vote.is_asked_N)
    predicted_N = vote.predicted_N[vote.is_asked_N]
    return {"num_pairs": len(asked), **headline(asked, predicted_N, len(names), num_bootstrap, seed)}


def _calibration(answers: Answers, mask_A: np.ndarray, judged: Judged) -> dict[str, Any] | None:
    """Of the label probabilities, averaged over the samples of a pair; None where no answer has them."""
    mask_A = mask_A & ~np.isnan(answers.probs_AC).any(axis=1)
    if not mask_A.any():
        return None
    row_N, place_A, count_N = np.unique(answers.row_A[mask_A], return_inverse=True, return_counts=True)
    probs_NC = np.zeros((len(row_N), answers.probs_AC.shape[1]))
    np.add.at(probs_NC, place_A, answers.probs_AC[mask_A])
    probs_NC /= count_N[:, None]
    gold_N = judged.gold_N[row_N]
    bins = reliability(probs_NC, gold_N)
    return {
        "num_pairs": len(row_N),
        "calibration_error": calibration_error(bins),
        "log_loss": log_loss(probs_NC, gold_N),
        "reliability": bins.tolist(),
    }


def _together(
    answers: Answers, judged: Judged, masks: dict[str, np.ndarray], num_bootstrap: int, seed: int
) -> dict[str, Any]:
    """Oracle, best single perspective and its pass@K over the pairs that every perspective answered.

    The best perspective is chosen on these same pairs, which flatters it, and so makes the comparison conservative.
    """
    tries = [_tries(answers, mask_A, judged) for mask_A in masks.values()]
    num_right_NK = np.stack([num_right_N for num_right_N, _ in tries], axis=1)
    num_tries_NK = np.stack([num_tries_N for _, num_tries_N in tries], axis=1)
    is_common_N = (num_tries_NK > 0).all(axis=1)
    summary: dict[str, Any] = {"num_perspectives": len(masks), "num_pairs": int(is_common_N.sum())}
    if not is_common_N.any():
        return summary
    num_right_NK, num_tries_NK = num_right_NK[is_common_N], num_tries_NK[is_common_N]
    query_N = judged.query_N[is_common_N]

    def mean(values_N: Floats) -> dict[str, float]:
        low, high = mean_interval(values_N, query_N, num_bootstrap, seed)
        return {"value": float(values_N.mean()), "low": low, "high": high}

    rate_NK = num_right_NK / num_tries_NK
    best = int(rate_NK.mean(axis=0).argmax())
    oracle_N = oracle(num_right_NK, num_tries_NK)
    summary |= {
        "oracle": mean(oracle_N),
        "best_single": {"perspective": list(masks)[best], **mean(rate_NK[:, best])},
    }
    if num_tries_NK[:, best].min() >= len(masks):
        passed_N = pass_at_k(num_right_NK[:, best], num_tries_NK[:, best], len(masks))
        summary["pass_of_best"] = {"k": len(masks), **mean(passed_N)}
        summary["oracle_minus_pass"] = mean(oracle_N - passed_N)
    return summary


def _tries(answers: Answers, mask_A: np.ndarray, judged: Judged) -> tuple[Ints, Ints]:
    """Right answers and all answers by pair, [N] each."""
    row_A = answers.row_A[mask_A]
    is_right_A = answers.predicted_A[mask_A] == judged.gold_N[row_A]
    num_right_N = np.bincount(row_A, is_right_A, len(judged)).astype(np.int64)
    return num_right_N, np.bincount(row_A, minlength=len(judged)).astype(np.int64)
