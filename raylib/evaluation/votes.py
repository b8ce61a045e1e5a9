"""One label a pair from a teacher's samples, how far perspectives agree, and which of two teachers is better.

Shape suffixes: N pairs, A answers, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from raylib.evaluation.inputs import Answers, Judged
from raylib.evaluation.metrics import NO_LABEL, Ints
from raylib.evaluation.resampling import difference
from raylib.prompts import UNIFIED

ALL = "all perspectives"


@dataclass(frozen=True)
class Vote:
    """What samples say together: the class of most of them, [N]; NO_LABEL where none of a pair's answers has one."""

    predicted_N: Ints
    is_asked_N: np.ndarray


def majority_vote(answers: Answers, mask_A: np.ndarray, num_pairs: int, num_classes: int) -> Vote:
    """Self-consistency (Wang et al. 2022, arXiv 2203.11171): the most frequent label; of equals the one given first."""
    row_A, predicted_A = answers.row_A[mask_A], answers.predicted_A[mask_A]
    is_asked_N = np.bincount(row_A, minlength=num_pairs) > 0
    position_A = np.flatnonzero(predicted_A != NO_LABEL)
    cell_A = row_A[position_A] * num_classes + predicted_A[position_A]
    count_NC = np.bincount(cell_A, minlength=num_pairs * num_classes).reshape(num_pairs, num_classes)
    first_NC = np.full(num_pairs * num_classes, len(row_A))
    np.minimum.at(first_NC, cell_A, position_A)
    rank_NC = count_NC * (len(row_A) + 1) - first_NC.reshape(num_pairs, num_classes)
    return Vote(np.where(count_NC.any(axis=1), rank_NC.argmax(axis=1), NO_LABEL), is_asked_N)


def kappa(a: Vote, b: Vote, num_classes: int) -> tuple[int, float]:
    """Cohen's kappa of two votes over the pairs where both have a label, and their number; NaN where it is undefined.

    1 is agreement on every pair, 0 what chance alone gives with the same frequencies of classes.
    """
    both_N = (a.predicted_N != NO_LABEL) & (b.predicted_N != NO_LABEL)
    cell_N = a.predicted_N[both_N] * num_classes + b.predicted_N[both_N]
    count_CC = np.bincount(cell_N, minlength=num_classes**2).reshape(num_classes, num_classes)
    total = count_CC.sum()
    if not total:
        return 0, float("nan")
    observed = np.trace(count_CC) / total
    chance = float(count_CC.sum(axis=0) @ count_CC.sum(axis=1)) / total**2
    return int(total), float((observed - chance) / (1 - chance)) if chance < 1 else float("nan")


def perspective_votes(answers: Answers, in_split_N: np.ndarray, num_classes: int) -> dict[str, Vote]:
    """The vote of each perspective on the pairs of a split, and of all but the unified one where they are several."""
    in_split_A = in_split_N[answers.row_A]
    names = sorted(set(answers.perspective_A[in_split_A]))
    masks = {name: in_split_A & (answers.perspective_A == name) for name in names}
    singles = [masks[name] for name in names if name != UNIFIED]
    if len(singles) > 1:
        masks[ALL] = np.any(singles, axis=0)
    return {name: majority_vote(answers, mask_A, len(in_split_N), num_classes) for name, mask_A in masks.items()}


def agreement(votes: Mapping[str, Vote], num_classes: int) -> list[dict[str, Any]]:
    """Kappa of each two perspectives, with the number of pairs behind it."""
    rows = []
    for a, b in combinations([name for name in votes if name != ALL], 2):
        num_pairs, value = kappa(votes[a], votes[b], num_classes)
        rows.append({"a": a, "b": b, "num_pairs": num_pairs, "kappa": value})
    return rows


def compare_teachers(
    votes: Mapping[str, Mapping[str, Vote]], judged: Judged, num_classes: int, num_bootstrap: int, seed: int
) -> list[dict[str, Any]]:
    """Each two teachers on the pairs that both were asked, the later one as a; without a common pair they are left out.

    A teacher stands for itself with its vote under the unified prompt, else with that of all its perspectives. A pair
    to which it gave no label counts as wrong.
    """
    rows = []
    for (teacher_b, votes_b), (teacher_a, votes_a) in combinations(votes.items(), 2):
        name_a, name_b = _own(votes_a), _own(votes_b)
        a, b = votes_a[name_a], votes_b[name_b]
        common_N = a.is_asked_N & b.is_asked_N
        if not common_N.any():
            continue
        predictions = (a.predicted_N[common_N], b.predicted_N[common_N])
        measured = difference(*predictions, judged.where(common_N), num_classes, num_bootstrap, seed)
        names = {"a": f"{teacher_a}, {name_a}", "b": f"{teacher_b}, {name_b}"}
        rows.append({**names, "num_pairs": int(common_N.sum()), **measured})
    return rows


def _own(votes: Mapping[str, Vote]) -> str:
    return next((name for name in (UNIFIED, ALL) if name in votes), next(iter(votes)))
