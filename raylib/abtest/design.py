"""Before and around an experiment: how many users it needs, what it can see, and whether the split is as planned."""

import math
from collections.abc import Mapping
from typing import Any

from scipy.stats import chisquare, norm

MISMATCH = 0.001  # p below which the split is not the planned one; the usual level, as it is looked at often


def users_needed(
    value: float,
    variance_a_user: float,
    relative_effect: float,
    shares: tuple[float, float],
    alpha: float,
    power: float,
) -> int:
    """Users of both arms together to see a relative effect with this power, two-sided.

    `variance_a_user` is that of the users' influence on the ratio `value`; `shares` are those of treated and control of
    all users, and the result counts all users, of other arms too.
    """
    effect = abs(value * relative_effect)
    if effect == 0.0:
        raise ValueError(f"relative effect {relative_effect} of {value}: must not be 0")
    treated, control = shares
    z = norm.isf(alpha / 2) + norm.isf(1 - power)
    return math.ceil(z**2 * variance_a_user * (1 / treated + 1 / control) / effect**2)


def detectable(value: float, variance: float, alpha: float, power: float) -> float:
    """The smallest relative effect that a comparison whose difference has this variance sees with this power."""
    z = float(norm.isf(alpha / 2) + norm.isf(1 - power))
    return z * math.sqrt(variance) / abs(value)


def sample_ratio_mismatch(num_users: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, Any]:
    """Chi-square test of users by arm against the planned shares; `is_mismatch` means that nothing else may be read."""
    total = sum(num_users.values())
    planned = sum(shares[arm] for arm in num_users)
    expected = [total * shares[arm] / planned for arm in num_users]
    found = chisquare(list(num_users.values()), expected)
    p = float(found.pvalue)
    return {"p": p, "is_mismatch": p < MISMATCH, "expected_users": dict(zip(num_users, expected, strict=True))}
