"""Joining the tokenised pairs of several requests into one batch. N pairs of all requests."""

from collections.abc import Sequence

import numpy as np

from raylib.student.data import TokenPairs


def join(requests: Sequence[TokenPairs]) -> TokenPairs:
    """The pairs of all requests, in order."""
    lengths_N = np.concatenate([tokens.lengths_N for tokens in requests])
    return TokenPairs(
        np.concatenate([tokens.tokens_T for tokens in requests]),
        np.concatenate([[0], np.cumsum(lengths_N)]),
        np.concatenate([tokens.item_start_N for tokens in requests]),
    )
