import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from raylib.evaluation.metrics import accuracy, confusion
from raylib.evaluation.resampling import (
    cluster_confusions,
    cluster_sums,
    confusion_replicates,
    interval,
    mcnemar,
    mean_interval,
    resample,
)


def test_identical_pairs_of_a_query_count_once():
    """Ten copies of each pair must not narrow the interval: queries are drawn, not pairs."""
    values = np.random.default_rng(0).random(60)
    single = mean_interval(values, np.arange(60), 2000, 1)
    copied = mean_interval(np.repeat(values, 10), np.repeat(np.arange(60), 10), 2000, 1)
    assert copied == pytest.approx(single)
    as_if_independent = mean_interval(np.repeat(values, 10), np.arange(600), 2000, 1)
    assert as_if_independent[1] - as_if_independent[0] < 0.5 * (single[1] - single[0])


def test_interval_covers_like_the_normal_one():
    values = np.random.default_rng(0).normal(size=400)
    low, high = mean_interval(values, np.arange(400), 4000, 0)
    half = 1.96 * values.std() / np.sqrt(400)
    assert high - low == pytest.approx(2 * half, rel=0.08)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.1 * half)


def test_same_seed_same_draws_and_chunks_do_not_matter(monkeypatch):
    sums = np.random.default_rng(0).random((50, 3))
    whole = resample(sums, 20, 7)
    monkeypatch.setattr("raylib.evaluation.resampling.CHUNK_CELLS", 150)
    np.testing.assert_allclose(resample(sums, 20, 7), whole)
    assert not np.allclose(resample(sums, 20, 8), whole)


def test_every_replicate_draws_as_many_queries_as_there_are():
    totals = resample(np.ones((30, 1)), 50, 0)
    assert (totals == 30).all()


def test_cluster_confusions_sum_to_the_confusion():
    rng = np.random.default_rng(0)
    gold, predicted, query = rng.integers(3, size=40), rng.integers(-1, 3, size=40), rng.integers(100, 107, size=40)
    per_query = cluster_confusions(gold, predicted, query, 3)
    assert (per_query.sum(axis=0).reshape(3, 4) == confusion(gold, predicted, 3)).all()
    assert per_query.shape[0] == len(np.unique(query))
    sizes = cluster_sums(np.ones((40, 1)), query)[:, 0]
    assert (per_query.sum(axis=1) == sizes).all()


def test_a_perfect_model_has_no_uncertainty():
    gold = np.arange(20) % 3
    replicates = confusion_replicates(gold, gold, np.arange(20), 3, 100, 0)
    assert interval(accuracy(replicates)) == (1.0, 1.0)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_equals_scipy(only_a, only_b):
    right_a = np.array([True] * only_a + [False] * only_b + [True, False])
    right_b = np.array([False] * only_a + [True] * only_b + [True, False])
    a, b, p = mcnemar(right_a, right_b)
    assert (a, b) == (only_a, only_b)
    expected = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert p == pytest.approx(expected)
