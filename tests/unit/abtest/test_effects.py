"""Estimates against closed forms and against simulation."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_ind

from raylib.abtest.design import detectable, sample_ratio_mismatch, users_needed
from raylib.abtest.effects import Estimate, Totals, always_valid, difference, estimates, influence


def arm(generator, num_users, effect=0.0, with_past=True):
    """Clicks by impressions of users who differ; 10 % of impressions are clicked on average."""
    readiness = generator.beta(2, 18, num_users)
    shown = 1 + generator.poisson(8, num_users)
    shown_before = generator.poisson(8, num_users)
    clicks = generator.binomial(shown, np.minimum(readiness * (1 + effect), 1.0))
    past = generator.binomial(shown_before, readiness).astype(float)
    before = (past, shown_before.astype(float)) if with_past else (None, None)
    return Totals(clicks.astype(float), shown.astype(float), *before)


def test_with_one_impression_each_it_is_the_mean_and_its_variance():
    values = np.array([1.0, 0.0, 4.0, 2.0])
    (found,) = estimates([Totals(values, np.ones(4))])
    assert (found.value, found.variance, found.num_users) == (1.75, values.var(ddof=1) / 4, 4)


def test_p_is_that_of_a_t_test_where_users_are_many():
    generator = np.random.default_rng(0)
    one, other = generator.normal(1.0, 1.0, 4000), generator.normal(1.05, 1.0, 4000)
    control, treated = estimates([Totals(one, np.ones(4000)), Totals(other, np.ones(4000))])
    found = difference(treated, control, 0.05)
    assert found["p"] == pytest.approx(ttest_ind(one, other, equal_var=False).pvalue, rel=0.02)
    assert found["difference"]["low"] < found["difference"]["value"] < found["difference"]["high"]


@pytest.mark.parametrize("with_past", [False, True])
def test_the_variance_is_that_of_repeated_experiments(with_past):
    generator = np.random.default_rng(1)
    differences, variances = [], []
    for _ in range(400):
        control, treated = estimates([arm(generator, 500, 0.0, with_past), arm(generator, 500, 0.1, with_past)])
        differences.append(treated.value - control.value)
        variances.append(treated.variance + control.variance)
    assert np.mean(variances) == pytest.approx(np.var(differences), rel=0.15)
    assert np.mean(differences) == pytest.approx(0.01, abs=4 * math.sqrt(np.mean(variances) / 400))


def test_the_past_lowers_the_variance_and_moves_no_truth():
    generator = np.random.default_rng(2)
    users = arm(generator, 20_000)
    (without,) = estimates([Totals(users.numerator_U, users.denominator_U)])
    (adjusted,) = estimates([users])
    now = influence(users.numerator_U, users.denominator_U)
    past = influence(users.before_numerator_U, users.before_denominator_U)
    correlation = np.corrcoef(now, past)[0, 1]
    assert correlation > 0.2
    assert adjusted.variance == pytest.approx((1 - correlation**2) * without.variance)
    assert adjusted.value == pytest.approx(without.value)  # one arm alone has the mean of all


def test_relative_interval_has_no_value_below_minus_one():
    found = difference(Estimate(0.01, 0.00002, 100), Estimate(0.02, 0.00002, 100), 0.05)
    assert found["relative"]["value"] == pytest.approx(-0.5)
    assert -1 < found["relative"]["low"] < -0.5 < found["relative"]["high"]


def test_always_valid_is_wider_and_agrees_with_its_own_p():
    control, treated = Estimate(0.1, 1e-6, 1000), Estimate(0.104, 1e-6, 1000)
    once, anytime = difference(treated, control, 0.05), always_valid(treated, control, 0.05, 0.002)
    assert anytime["difference"]["low"] < once["difference"]["low"]
    assert anytime["p"] > once["p"]
    for value in np.linspace(0.1, 0.108, 30):
        found = always_valid(Estimate(value, 1e-6, 1000), control, 0.05, 0.002)
        is_inside = found["difference"]["low"] <= 0 <= found["difference"]["high"]
        assert is_inside == (found["p"] > 0.05)


def test_empty_arms_are_refused():
    for users in (Totals(np.zeros(3), np.zeros(3)), Totals(np.ones(1), np.ones(1))):
        with pytest.raises(ValueError, match="two users or more and a denominator above 0"):
            estimates([users])


def test_users_needed_have_the_power():
    generator = np.random.default_rng(3)
    (base,) = estimates([arm(generator, 50_000, with_past=False)])
    needed = users_needed(base.value, base.variance * base.num_users, 0.1, (0.5, 0.5), 0.05, 0.8)
    num_found = 0
    for _ in range(300):
        control, treated = estimates([arm(generator, needed // 2, effect, False) for effect in (0.0, 0.1)])
        num_found += difference(treated, control, 0.05)["p"] < 0.05
    assert num_found / 300 == pytest.approx(0.8, abs=0.07)
    variance = 4 * base.variance * base.num_users / needed
    assert detectable(base.value, variance, 0.05, 0.8) == pytest.approx(0.1, rel=1e-3)


def test_a_split_that_is_not_the_planned_one_is_found():
    shares = {"control": 0.8, "student": 0.1, "lrkd": 0.1}
    assert not sample_ratio_mismatch({"control": 80_100, "student": 9_950, "lrkd": 9_950}, shares)["is_mismatch"]
    found = sample_ratio_mismatch({"control": 80_000, "student": 10_000, "lrkd": 9_000}, shares)
    assert found["is_mismatch"]
    assert found["expected_users"]["lrkd"] == pytest.approx(9_900)
