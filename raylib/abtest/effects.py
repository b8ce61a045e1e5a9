"""What an arm of an experiment changed: ratios of totals over users, their differences, intervals and tests.

A metric is a ratio such as clicks by impressions. Users are independent, the rows of one user are not: variances are by
the delta method over users (arXiv 1803.06336). With a time before the experiment they are lowered by CUPED (Deng et
al., WSDM 2013). An interval that may be looked at every day is the always valid one of arXiv 1512.04922.

U users of one arm; totals are one number a user.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Totals:
    """A metric's numerator and denominator by user of one arm; before the experiment too, 0 where nothing is known."""

    numerator_U: Floats
    denominator_U: Floats
    before_numerator_U: Floats | None = None
    before_denominator_U: Floats | None = None

    def __len__(self) -> int:
        return len(self.numerator_U)


@dataclass(frozen=True)
class Estimate:
    """A ratio with the variance of its estimate."""

    value: float
    variance: float
    num_users: int


def influence(numerator_U: Floats, denominator_U: Floats) -> Floats:
    """How much each user moves the ratio of totals, to first order: their mean is 0, their variance / U that of it."""
    mean = float(denominator_U.mean()) if len(denominator_U) else 0.0
    if mean == 0.0:
        return np.zeros_like(numerator_U)
    ratio = numerator_U.sum() / denominator_U.sum()
    scaled: Floats = (numerator_U - ratio * denominator_U) / mean
    return scaled


def estimates(arms: Sequence[Totals]) -> list[Estimate]:
    """The ratio of each arm; adjusted by what the users did before, where that is known of all arms.

    Raises ValueError for an arm with fewer than two users or an empty denominator.
    """
    for arm in arms:
        if len(arm) < 2 or arm.denominator_U.sum() == 0.0:
            raise ValueError("an arm needs two users or more and a denominator above 0")
    influences = [influence(arm.numerator_U, arm.denominator_U) for arm in arms]
    values = [float(arm.numerator_U.sum() / arm.denominator_U.sum()) for arm in arms]
    before = _before(arms)
    if before is not None:
        pooled = np.concatenate(before) if before else np.zeros(0)
        # within arms: what the arms differ in must not decide how the past is weighed
        covariance = sum(len(one) * np.cov(one, past)[0, 1] for one, past in zip(influences, before, strict=True))
        spread = sum(len(past) * past.var(ddof=1) for past in before)
        theta = float(covariance / spread) if spread else 0.0
        centre = float(pooled.mean())
        values = [value - theta * (float(past.mean()) - centre) for value, past in zip(values, before, strict=True)]
        influences = [one - theta * past for one, past in zip(influences, before, strict=True)]
    return [
        Estimate(value, float(one.var(ddof=1)) / len(one), len(one))
        for value, one in zip(values, influences, strict=True)
    ]


def _before(arms: Sequence[Totals]) -> list[Floats] | None:
    """Each arm's users' influence on the ratio before, all arms pooled; None where no user has a past."""
    pasts = [(arm.before_numerator_U, arm.before_denominator_U) for arm in arms]
    if any(numerator is None or denominator is None for numerator, denominator in pasts):
        return None
    numerator = np.concatenate([one for one, _ in pasts])  # type: ignore[misc]
    denominator = np.concatenate([other for _, other in pasts])  # type: ignore[misc]
    if denominator.sum() == 0.0:
        return None
    ends = np.cumsum([len(arm) for arm in arms])[:-1]
    return np.split(influence(numerator, denominator), ends)


def difference(treated: Estimate, control: Estimate, alpha: float) -> dict[str, Any]:
    """treated - control, absolute and relative, with intervals of level 1 - alpha, and the two-sided p-value."""
    delta, variance = treated.value - control.value, treated.variance + control.variance
    z = float(norm.isf(alpha / 2))
    reach = z * math.sqrt(variance)
    found: dict[str, Any] = {"difference": _interval(delta, reach), "p": _two_sided(delta, variance)}
    if control.value > 0 and treated.value > 0:  # on the log scale a relative effect has no lower bound to break
        relative = z * math.sqrt(treated.variance / treated.value**2 + control.variance / control.value**2)
        log_ratio = math.log(treated.value / control.value)
        low, high = (math.expm1(log_ratio + side * relative) for side in (-1, 1))
        found["relative"] = {"value": math.expm1(log_ratio), "low": low, "high": high}
    return found


def always_valid(treated: Estimate, control: Estimate, alpha: float, expected: float) -> dict[str, Any]:
    """The same with an interval and a p-value that hold at every look, however many there are.

    A mixture sequential probability ratio test with a normal prior of standard deviation `expected`, the absolute
    difference at which it is the most powerful; it must be above 0. The interval is wider than a fixed one.
    """
    if expected <= 0:
        raise ValueError(f"expected {expected}: must be above 0")
    delta, variance = treated.value - control.value, treated.variance + control.variance
    prior = expected**2
    if variance == 0.0:
        return {"difference": _interval(delta, 0.0), "p": 1.0 if delta == 0.0 else 0.0}
    log_ratio = 0.5 * math.log(variance / (variance + prior)) + delta**2 * prior / (2 * variance * (variance + prior))
    reach = math.sqrt(
        variance * (variance + prior) / prior * (2 * math.log(1 / alpha) + math.log((variance + prior) / variance))
    )
    return {"difference": _interval(delta, reach), "p": math.exp(min(0.0, -log_ratio))}


def _interval(value: float, reach: float) -> dict[str, float]:
    return {"value": value, "low": value - reach, "high": value + reach}


def _two_sided(delta: float, variance: float) -> float:
    if variance == 0.0:
        return 1.0 if delta == 0.0 else 0.0
    return float(2 * norm.sf(abs(delta) / math.sqrt(variance)))
