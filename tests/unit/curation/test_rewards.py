import math
from typing import Any

import pytest

from raylib.curation.faithfulness import Support
from raylib.curation.rewards import Ranked, Reward, rank_by_reward


def answer(label: str | None, rationale: str = "one two three four five six") -> dict[str, Any]:
    return {"pair_id": "p", "label": label, "rationale": rationale}


def test_the_score_is_the_weighted_mean_of_the_dimensions() -> None:
    reward = Reward(correctness=4, faithfulness=3, coverage=2, length=1)
    found = Support(num_mentions=4, num_unsupported=1, coverage=0.5)
    assert reward.score(answer("G"), "G", found) == pytest.approx((4 + 3 * 0.75 + 2 * 0.5 + 1) / 10)
    assert reward.score(answer("W"), "G", found) == pytest.approx((3 * 0.75 + 2 * 0.5 + 1) / 10)


@pytest.mark.parametrize(("num_words", "expected"), [(0, 0.0), (2, 0.5), (4, 1.0), (10, 1.0), (15, 0.5), (30, 0.0)])
def test_length_counts_within_bounds(num_words: int, expected: float) -> None:
    assert Reward(min_words=4, max_words=10).length_reward(num_words) == pytest.approx(expected)


def rank(labels: str, rewards: list[float], usable: str = "") -> Ranked:
    rows = [answer(None if label == "." else label) for label in labels]
    return rank_by_reward(rows, "G", rewards, 0.25, 0, [mark != "x" for mark in usable or labels])


def test_the_best_right_answer_is_chosen_over_one_below_the_margin() -> None:
    assert rank("GGW", [0.6, 0.9, 0.64]) == Ranked(None, 1, 2) or rank("GGW", [0.6, 0.9, 0.64]) == Ranked(None, 1, 0)
    assert rank("GGW", [0.7, 0.9, 0.6]) == Ranked(None, 1, 2)
    assert rank("WG.", [1.0, 0.5, 0.1]).reason == "no_margin", "a better-styled wrong answer is no reason to reject"


def test_every_way_to_fall_out_has_its_reason() -> None:
    assert rank("..", [0.0, 0.0]).reason == "no_answer"
    assert rank("WW", [0.1, 0.9]).reason == "no_right_rationale"
    assert rank("GW", [0.9, 0.1], usable="x ").reason == "unsupported"
    assert rank("GG", [0.9, 0.8]).reason == "no_margin"


def test_of_equals_the_seed_draws() -> None:
    rows, rewards = [answer("G"), answer("G"), answer("W")], [0.9, 0.9, 0.1]
    drawn = {rank_by_reward(rows, "G", rewards, 0.25, seed, [True] * 3).chosen for seed in range(20)}
    assert drawn == {0, 1}


def test_weights_that_tell_nothing_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="all weights are 0"):
        Reward(correctness=0, faithfulness=0, coverage=0, length=0)
    with pytest.raises(ValueError, match="min_words 9 is above max_words 3"):
        Reward(min_words=9, max_words=3)
    assert math.isclose(Reward().margin, 0.25)
