import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from raylib.student.metrics import accuracy, confusion, macro_f1, summarise


@pytest.mark.parametrize("num_seen", [4, 3])  # with 3, one class of the schema never occurs
def test_equals_scikit_learn(num_seen):
    generator = np.random.default_rng(0)
    gold, predicted = generator.integers(0, num_seen, (2, 200))
    counts_CC = confusion(gold, predicted, 4)
    assert accuracy(counts_CC) == pytest.approx(accuracy_score(gold, predicted))
    assert macro_f1(counts_CC) == pytest.approx(f1_score(gold, predicted, average="macro"))


def test_majority_baseline_answers_the_most_frequent_gold_class():
    gold = np.array([1, 1, 1, 0, 2])
    summary = summarise(confusion(gold, np.array([0, 0, 0, 0, 0]), 3))
    assert summary["accuracy"] == pytest.approx(0.2)
    assert summary["majority_accuracy"] == pytest.approx(0.6)
    assert summary["majority_macro_f1"] == pytest.approx(f1_score(gold, [1] * 5, average="macro"))
