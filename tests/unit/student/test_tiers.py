import numpy as np
import pytest
from pydantic import ValidationError

from raylib.student.tiers import TierTargets, fit_thresholds, measure_tiers


def drawn(num_pairs=4000, seed=0):
    """Scores that are honest: an item of score s is relevant with probability s."""
    generator = np.random.default_rng(seed)
    score_N = generator.random(num_pairs)
    return score_N, (generator.random(num_pairs) < score_N).astype(float)


def fitted(score_N, gain_N, targets):
    starts = fit_thresholds(score_N, gain_N, targets)
    return starts, measure_tiers(np.searchsorted(starts, score_N, side="right"), gain_N, targets)


def test_targets_are_kept_on_these_pairs_and_on_others_of_their_kind():
    targets = TierTargets(tier_0=0.97, filtered=0.9, upper=0.8, tier_4=0.9)
    score_N, gain_N = drawn()
    starts, kept = fitted(score_N, gain_N, targets)
    assert list(starts) == sorted(set(starts))
    for name in ("tier_0", "filtered", "upper", "tier_4"):
        assert kept[name]["precision"] >= getattr(targets, name)
        assert kept[name]["precision"] == pytest.approx(getattr(targets, name), abs=0.02)  # as many items as it allows
    # mean probability below t is t / 2: a share of 0.9 irrelevant items ends at about 0.2
    assert starts[1] == pytest.approx(0.2, abs=0.05)
    assert starts[2] == pytest.approx(0.6, abs=0.05)
    other_score_N, other_gain_N = drawn(seed=1)
    assert (other_gain_N[other_score_N < starts[1]] == 0).mean() == pytest.approx(0.9, abs=0.03)


def test_a_target_that_cannot_be_kept_leaves_its_tiers_empty():
    score_N, gain_N = np.array([0.1, 0.2, 0.8, 0.9]), np.array([1.0, 0.0, 1.0, 0.0])
    starts, kept = fitted(score_N, gain_N, TierTargets(tier_0=1.0, filtered=0.9, upper=0.9, tier_4=1.0))
    assert (np.searchsorted(starts, score_N, side="right") == 2).all()
    assert kept["filtered"] == {"target": 0.9, "precision": None, "share_of_items": 0.0}


def test_items_of_one_score_are_in_one_tier():
    score_N = np.array([0.2] * 4 + [0.7] * 4)
    gain_N = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    starts, kept = fitted(score_N, gain_N, TierTargets(tier_0=0.9, filtered=0.7, upper=0.9, tier_4=0.95))
    assert kept["filtered"]["precision"] == 0.75
    assert kept["tier_0"]["precision"] is None
    assert kept["tier_4"] == {"target": 0.95, "precision": 1.0, "share_of_items": 0.5}
    assert starts[0] < 0.2 < starts[1] < 0.7


def test_impossible_targets_are_refused():
    with pytest.raises(ValidationError, match="tier_0 >= filtered and tier_4 >= upper"):
        TierTargets(tier_0=0.8, filtered=0.9)
    with pytest.raises(ValueError, match="no pair"):
        fit_thresholds(np.zeros(0), np.zeros(0), TierTargets())
