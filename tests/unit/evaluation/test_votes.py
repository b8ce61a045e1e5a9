import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import cohen_kappa_score

from raylib.evaluation.inputs import Answers, Judged
from raylib.evaluation.metrics import NO_LABEL
from raylib.evaluation.votes import ALL, Vote, agreement, compare_teachers, kappa, majority_vote, perspective_votes

A, B, C = 0, 1, 2


def answers(rows):
    row, perspective, predicted = zip(*rows, strict=True)
    nothing = np.array([None] * len(rows), object)
    probs_AC = np.full((len(rows), 3), np.nan)
    return Answers(np.array(row), np.array(perspective, object), np.array(predicted), nothing, probs_AC)


def vote(*labels):
    return Vote(np.array(labels), np.ones(len(labels), bool))


def test_the_most_frequent_label_wins_and_of_equals_the_first():
    given = answers(
        [
            *[(0, "x", B), (0, "x", A), (0, "x", A)],
            *[(1, "x", C), (1, "x", A), (1, "x", A), (1, "x", C)],
            *[(2, "x", NO_LABEL), (2, "x", NO_LABEL)],
            *[(3, "x", NO_LABEL), (3, "x", B)],
        ]
    )
    found = majority_vote(given, np.ones(len(given.row_A), bool), num_pairs=5, num_classes=3)
    assert found.predicted_N.tolist() == [A, C, NO_LABEL, B, NO_LABEL]
    assert found.is_asked_N.tolist() == [True, True, True, True, False]


def test_votes_of_all_leave_the_unified_prompt_out():
    given = answers([(0, "x", A), (0, "y", A), (0, "unified", B), (0, "unified", B), (0, "unified", B)])
    votes = perspective_votes(given, np.array([True]), 3)
    assert {name: found.predicted_N.tolist() for name, found in votes.items()} == {
        "unified": [B],
        "x": [A],
        "y": [A],
        ALL: [A],
    }
    assert set(perspective_votes(answers([(0, "x", A)]), np.array([True]), 3)) == {"x"}
    assert perspective_votes(given, np.array([False]), 3) == {}


def test_kappa_equals_scikit_learn():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 3, 200)
    b = np.where(rng.random(200) < 0.5, a, rng.integers(0, 3, 200))
    num_pairs, value = kappa(vote(*a), vote(*b), 3)
    assert num_pairs == 200
    assert value == pytest.approx(cohen_kappa_score(a, b))


def test_kappa_counts_pairs_with_two_labels_and_is_undefined_without_variety():
    assert kappa(vote(A, B, NO_LABEL), vote(A, B, B), 3) == (2, 1.0)
    assert np.isnan(kappa(vote(A, A), vote(A, A), 3)[1])
    assert kappa(vote(NO_LABEL), vote(A), 3)[0] == 0


def test_agreement_names_each_two_perspectives_once():
    votes = {"x": vote(A, B), "y": vote(A, B), "z": vote(B, A), ALL: vote(A, A)}
    found = agreement(votes, 3)
    assert [(row["a"], row["b"], row["kappa"]) for row in found] == [
        ("x", "y", 1.0),
        ("x", "z", -1.0),
        ("y", "z", -1.0),
    ]


def test_teachers_are_compared_on_the_pairs_that_both_were_asked():
    judged = Judged(pa.table({"split": ["test"] * 4}), np.array([A, A, B, B]), np.arange(4), np.full(4, -1))
    first = {"x": Vote(np.array([A, B, B, NO_LABEL]), np.array([True, True, True, False]))}
    second = {"unified": vote(A, A, NO_LABEL, B), "x": vote(C, C, C, C)}
    (row,) = compare_teachers({"first": first, "second": second}, judged, 3, 100, 0)
    assert (row["a"], row["b"], row["num_pairs"]) == ("second, unified", "first, x", 3)
    assert (row["only_a_right"], row["only_b_right"], row["mcnemar_p"]) == (1, 1, 1.0)
    assert row["accuracy_difference"]["value"] == 0.0
    nothing_shared = {"x": Vote(np.array([0, 0, 0, A]), np.array([False, False, False, True]))}
    assert compare_teachers({"first": first, "third": nothing_shared}, judged, 3, 100, 0) == []
