"""Random draws that are a pure function of a key, vectorised: the same item or pair always gets the same draw.

A stateful generator would tie an item's title to the order in which rows are written; keyed draws let 10 M rows stream
in constant memory while every row of an item agrees. The mixing function is splitmix64 (Steele et al. 2014).
"""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

_GOLDEN = 0x9E3779B97F4A7C15


def keyed(values: Ints, seed: int, purpose: int) -> Keys:
    """Keys [N] for `values` [N]; another seed or another purpose gives unrelated keys."""
    start = _mix(_mix(np.array([seed % 2**64], np.uint64)) + np.uint64(purpose))
    return _mix(values.astype(np.uint64) + start)


def uniform(keys: Keys, salt: int) -> Floats:
    """Draws in [0, 1), one a key [N]; draws under different salts are independent."""
    mantissa = _mix(keys + np.uint64(salt * _GOLDEN % 2**64)) >> np.uint64(11)
    return mantissa.astype(np.float64) * 2.0**-53


def integers(keys: Keys, salt: int, bound: int) -> Ints:
    """Draws in 0..bound-1, one a key [N]."""
    return (uniform(keys, salt) * bound).astype(np.int64)


def choices(keys: Keys, salt: int, weights: npt.ArrayLike) -> Ints:
    """Indices drawn with probability proportional to `weights`."""
    cumulative = np.cumsum(np.asarray(weights, dtype=np.float64))
    return np.searchsorted(cumulative / cumulative[-1], uniform(keys, salt), side="right").astype(np.int64)


def _mix(z: Keys) -> Keys:
    z = z + np.uint64(_GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
