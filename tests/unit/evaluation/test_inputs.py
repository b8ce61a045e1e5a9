import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raylib.evaluation.inputs import traffic_segments


def test_each_segment_holds_a_third_of_the_impressions():
    impressions = (10_000 / np.arange(1, 2001)).astype(np.int64)
    segments = traffic_segments(impressions)
    shares = [impressions[segments == i].sum() / impressions.sum() for i in range(3)]
    assert np.allclose(shares, 1 / 3, atol=0.05)
    sizes = [(segments == i).sum() for i in range(3)]
    assert sizes[0] < sizes[1] < sizes[2]


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30))
def test_more_impressions_never_mean_a_later_segment(impressions):
    segments = traffic_segments(np.array(impressions))
    if sum(impressions) == 0:
        assert set(segments) == {-1}
    else:
        order = np.argsort(-np.array(impressions), kind="stable")
        assert (np.diff(segments[order]) >= 0).all()
        assert segments[order[0]] == 0
