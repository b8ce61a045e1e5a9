from itertools import combinations, product

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylib.evaluation.inputs import Answers, Judged
from raylib.evaluation.teachers import oracle, pass_at_k, summarize_teacher

NAMES = ("a", "b")


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.integers(1, 7))
def test_pass_at_k_equals_all_subsets(right, k):
    estimate = pass_at_k(np.array([sum(right)]), np.array([len(right)]), k)[0]
    if k > len(right):
        assert np.isnan(estimate)
    else:
        assert estimate == pytest.approx(np.mean([any(subset) for subset in combinations(right, k)]))


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=3), min_size=2, max_size=3))
def test_oracle_equals_all_combinations_of_one_answer_each(right):
    estimate = oracle(np.array([[sum(tries) for tries in right]]), np.array([[len(tries) for tries in right]]))[0]
    assert estimate == pytest.approx(np.mean([any(chosen) for chosen in product(*right)]))


def test_summary_by_hand():
    judged = judged_pairs(gold=[0, 1, 0], split=["test", "test", "train"])
    rows = [
        *[(0, "x", 0), (0, "x", 1), (0, "y", 0), (0, "y", 0)],
        *[(1, "x", 0), (1, "x", 0), (1, "y", 1), (1, "y", -1)],
        *[(0, "unified", 0), (1, "unified", 0), (2, "x", 0)],
    ]
    summary = summarize_teacher(answers(rows), judged, NAMES, 100, 0)
    assert set(summary) == {"test", "train"}
    test = summary["test"]
    accuracies = {name: value["accuracy"]["value"] for name, value in test["perspectives"].items()}
    assert accuracies == {"x": 0.25, "y": 0.75, "unified": 0.5}
    assert test["perspectives"]["x"]["pass_at"] == {"1": 0.25, "2": 0.5}
    assert test["perspectives"]["y"]["per_class_recall"] == {"a": 1.0, "b": 0.5}
    assert test["perspectives"]["y"]["errors"] == {"no_label": 1}
    together = test["together"]
    assert together["best_single"]["perspective"] == "y"
    assert together["best_single"]["value"] == 0.75
    assert together["pass_of_best"] == {"k": 2, "value": 1.0, "low": 1.0, "high": 1.0}
    assert together["oracle"]["value"] == pytest.approx((1.0 + 0.5) / 2)
    assert together["oracle_minus_pass"]["value"] == pytest.approx(-0.25)
    assert "together" not in summary["train"]  # one perspective only


def test_only_pairs_that_every_perspective_answered_are_compared():
    judged = judged_pairs(gold=[0, 1], split=["test", "test"])
    summary = summarize_teacher(answers([(0, "x", 0), (0, "y", 1), (1, "x", 1)]), judged, NAMES, 100, 0)
    together = summary["test"]["together"]
    assert together["num_pairs"] == 1
    assert together["oracle"]["value"] == 1.0
    assert "pass_of_best" not in together  # one try of x cannot be compared with two perspectives
    apart = summarize_teacher(answers([(0, "x", 0), (1, "y", 1)]), judged, NAMES, 100, 0)
    assert apart["test"]["together"] == {"num_perspectives": 2, "num_pairs": 0}


def test_calibration_is_that_of_the_mean_over_samples():
    judged = judged_pairs(gold=[0, 1], split=["test", "test"])
    rows, nan = [(0, "x", 0), (0, "x", 1), (1, "x", 0)], [np.nan, np.nan]
    summary = summarize_teacher(answers(rows, [[1.0, 0.0], [0.4, 0.6], nan]), judged, NAMES, 100, 0)
    calibration = summary["test"]["perspectives"]["x"]["calibration"]
    assert calibration["num_pairs"] == 1
    assert calibration["calibration_error"] == pytest.approx(0.3)
    assert calibration["log_loss"] == pytest.approx(-np.log(0.7))
    assert summarize_teacher(answers(rows), judged, NAMES, 100, 0)["test"]["perspectives"]["x"]["calibration"] is None


def judged_pairs(gold: list[int], split: list[str]) -> Judged:
    size = len(gold)
    return Judged(pa.table({"split": split}), np.array(gold), np.arange(size), np.full(size, -1))


def answers(rows: list[tuple[int, str, int]], probs: list[list[float]] | None = None) -> Answers:
    row, perspective, predicted = zip(*rows, strict=True)
    errors = np.array([None if label >= 0 else "no_label" for label in predicted], object)
    probs_AC = np.array(probs or [[np.nan] * len(NAMES)] * len(rows))
    return Answers(np.array(row), np.array(perspective, object), np.array(predicted), errors, probs_AC)
