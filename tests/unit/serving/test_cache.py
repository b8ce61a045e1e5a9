import numpy as np

from raylib.serving.cache import ScoreCache, cache_keys


def test_keys_tell_query_and_item_apart():
    assert len({*cache_keys("a", ["b c", "bc"]), *cache_keys("a b", ["c", "bc"]), *cache_keys("", ["a b c"])}) == 5
    assert cache_keys("q", ["x", "y"]) == [cache_keys("q", ["x"])[0], cache_keys("q", ["y"])[0]]


def test_the_pairs_asked_for_longest_ago_make_room():
    cache = ScoreCache(2)
    cache.keep([b"a", b"b"], np.array([[0.0], [1.0]]))
    assert cache.find([b"a"]) == [np.array([0.0])]
    cache.keep([b"c"], np.array([[2.0]]))
    assert [found is None for found in cache.find([b"a", b"b", b"c"])] == [False, True, False]


def test_what_is_kept_does_not_change_with_the_batch():
    cache, probs_NC = ScoreCache(1), np.array([[0.25]])
    cache.keep([b"a"], probs_NC)
    probs_NC[:] = 9.0
    assert cache.find([b"a"]) == [np.array([0.25])]
