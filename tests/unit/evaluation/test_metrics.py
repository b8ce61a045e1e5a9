import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score
from sklearn.metrics import log_loss as sklearn_log_loss

from raylib.evaluation.metrics import (
    accuracy,
    calibration_error,
    confusion,
    log_loss,
    macro_f1,
    per_class_recall,
    reliability,
)

ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(ROWS)
def test_measures_equal_scikit_learn(rows):
    gold, predicted = np.array(rows).T
    counts = confusion(gold, predicted, 4)
    assert (counts[:, :4] == confusion_matrix(gold, predicted, labels=range(4))).all()
    assert accuracy(counts) == pytest.approx(accuracy_score(gold, predicted))
    assert macro_f1(counts) == pytest.approx(f1_score(gold, predicted, average="macro", zero_division=0))
    recalls = recall_score(gold, predicted, labels=range(4), average=None, zero_division=np.nan)
    np.testing.assert_allclose(per_class_recall(counts), recalls)


def test_an_answer_without_a_label_is_wrong_but_no_prediction():
    counts = confusion(np.array([0, 0, 1]), np.array([0, -1, 1]), 2)
    assert accuracy(counts) == pytest.approx(2 / 3)
    assert per_class_recall(counts).tolist() == [0.5, 1.0]
    assert macro_f1(counts) == pytest.approx((2 / 3 + 1) / 2)  # class 0: 2 * 1 / (2 gold + 1 predicted)


def test_majority_class_on_esci_shares():
    gold = np.repeat([0, 1, 2, 3], [543, 300, 57, 100])
    counts = confusion(gold, np.zeros_like(gold), 4)
    assert macro_f1(counts) == pytest.approx(2 * 0.543 / 1.543 / 4)


def test_calibration_error_by_hand():
    probs = np.array([[0.95, 0.05], [0.95, 0.05], [0.55, 0.45], [0.45, 0.55]])
    bins = reliability(probs, np.array([0, 1, 0, 0]), num_bins=10)
    # bin (0.9, 1]: confidence 0.95, accuracy 0.5; bin (0.5, 0.6]: confidence 0.55, accuracy 0.5; half the rows each
    assert calibration_error(bins) == pytest.approx(0.5 * 0.45 + 0.5 * 0.05)
    assert bins[:, 0].sum() == 4


def test_certain_and_right_is_calibrated():
    probs = np.eye(3)
    assert calibration_error(reliability(probs, np.arange(3))) == 0


def test_log_loss_equals_scikit_learn():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), 50)
    gold = rng.integers(3, size=50)
    assert log_loss(probs, gold) == pytest.approx(sklearn_log_loss(gold, probs, labels=range(3)))
