"""Where the tiers begin, from what the user asks of them: thresholds on the score that keep a precision on dev.

Tiers 0 and 1 are filtered before ranking, so what they hold should be irrelevant; tiers 3 and 4 are shown first, so
what they hold should be relevant. arXiv 2601.21611 calibrates thresholds and does not say how; this is ours. N pairs.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from raylib.config import Section

Floats = NDArray[np.float64]
GAP = 1e-6  # between thresholds that would be equal; scores are in [0, 1]


class TierTargets(Section):
    """Precision that each pair of tiers keeps on dev."""

    relevant_gain: float = Field(0.5, gt=0.0, le=1.0, description="gain of its class from which an item is relevant")
    tier_0: float = Field(0.98, gt=0.0, le=1.0, description="share of irrelevant items in tier 0, at least")
    filtered: float = Field(0.95, gt=0.0, le=1.0, description="share of irrelevant items in tiers 0 and 1, at least")
    upper: float = Field(0.8, gt=0.0, le=1.0, description="share of relevant items in tiers 3 and 4, at least")
    tier_4: float = Field(0.95, gt=0.0, le=1.0, description="share of relevant items in tier 4, at least")

    @model_validator(mode="after")
    def _nested(self) -> "TierTargets":
        if self.tier_0 < self.filtered or self.tier_4 < self.upper:
            raise ValueError("the outer tiers ask for more: tier_0 >= filtered and tier_4 >= upper")
        return self


def fit_thresholds(score_N: Floats, gain_N: Floats, targets: TierTargets) -> tuple[float, float, float, float]:
    """Scores at which tiers 1, 2, 3 and 4 begin.

    As many items as the target allows are filtered, and as many are in the upper tiers. A target that no threshold
    keeps leaves its tiers empty. Take pairs that did not train the student. Raises ValueError without a pair.
    """
    if len(score_N) == 0:
        raise ValueError("no pair to fit thresholds on")
    is_relevant_N = gain_N >= targets.relevant_gain
    filtered = _highest(score_N, ~is_relevant_N, targets.filtered, lambda _: True)
    lowest = _highest(score_N, ~is_relevant_N, targets.tier_0, lambda start: start <= filtered)
    # the same from above, with the order turned round
    upper = -_highest(-score_N, is_relevant_N, targets.upper, lambda start: -start >= filtered)
    highest = -_highest(-score_N, is_relevant_N, targets.tier_4, lambda start: -start >= upper)
    return _ascending(lowest, filtered, upper, highest)


def measure_tiers(tier_N: np.ndarray, gain_N: Floats, targets: TierTargets) -> dict[str, dict[str, float | None]]:
    """What each target became: precision (None in an empty tier) and share of the items."""
    is_relevant_N = gain_N >= targets.relevant_gain
    kept: dict[str, dict[str, float | None]] = {}
    for name, is_here_N, is_right_N in (
        ("tier_0", tier_N == 0, ~is_relevant_N),
        ("filtered", tier_N <= 1, ~is_relevant_N),
        ("upper", tier_N >= 3, is_relevant_N),
        ("tier_4", tier_N == 4, is_relevant_N),
    ):
        count = int(is_here_N.sum())
        precision = float(is_right_N[is_here_N].mean()) if count else None
        kept[name] = {"target": getattr(targets, name), "precision": precision, "share_of_items": count / len(tier_N)}
    return kept


def _highest(score_N: Floats, is_wanted_N: np.ndarray, target: float, is_allowed: Callable[[float], bool]) -> float:
    """The highest place between two scores below which the share of wanted items is at least `target`.

    Below all scores when there is none: nothing is below it.
    """
    order = np.argsort(score_N, kind="stable")
    score, wanted = score_N[order], is_wanted_N[order]
    precision = np.cumsum(wanted) / np.arange(1, len(score) + 1)
    ends = np.append(score[:-1] < score[1:], True)  # items of one score go together
    for place in np.flatnonzero(ends & (precision >= target))[::-1]:
        last = place + 1 == len(score)
        start = float(score[place] + GAP if last else (score[place] + score[place + 1]) / 2)
        if is_allowed(start):
            return start
    return float(score[0] - GAP)


def _ascending(*starts: float) -> tuple[float, float, float, float]:
    """The thresholds, each strictly above the one before."""
    one, two, three, four = starts
    one = min(one, two - GAP)
    three = max(three, two + GAP)
    return one, two, three, max(four, three + GAP)
