import numpy as np

from raylib.serving.batches import join
from raylib.student.data import TokenPairs


def token_pairs(lengths: list[int], first: int) -> TokenPairs:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    return TokenPairs(np.arange(first, first + starts[-1]), starts, np.ones(len(lengths), np.int32))


def test_joined_pairs_are_the_requests_in_order():
    a, b = token_pairs([2, 3], 0), token_pairs([4], 100)
    joined = join([a, b])
    assert len(joined) == 3
    pieces = [joined.tokens_T[joined.starts_N1[n] : joined.starts_N1[n + 1]].tolist() for n in range(3)]
    assert pieces == [[0, 1], [2, 3, 4], [100, 101, 102, 103]]
