"""Joining the tokenised pairs of several requests into one batch. N pairs of all requests."""

from collections.abc import Sequence

import numpy as np

from raylib.student.data import TokenPairs


def num_tokens(requests: Sequence[tuple[TokenPairs, int]]) -> int:
    """Tokens of a batch of (tokenised pairs, budget); one request alone never exceeds the budget, so it is served."""
    total = sum(int(tokens.lengths_N.sum()) for tokens, _ in requests)
    return min(total, requests[0][1]) if len(requests) == 1 else total


def join(requests: Sequence[TokenPairs]) -> TokenPairs:
    """The pairs of all requests, in order."""
    lengths_N = np.concatenate([tokens.lengths_N for tokens in requests])
    return TokenPairs(
        np.concatenate([tokens.tokens_T for tokens in requests]),
        np.concatenate([[0], np.cumsum(lengths_N)]),
        np.concatenate([tokens.item_start_N for tokens in requests]),
    )
