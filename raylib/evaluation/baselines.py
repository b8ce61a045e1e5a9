"""Models that a student must beat before it is worth serving; fitted on the train split, which students also see."""

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from raylib.evaluation.inputs import Judged
from raylib.evaluation.metrics import Floats, Ints, confusion, macro_f1

MAX_FEATURES = 50_000  # each for queries and titles
INVERSE_PENALTIES = (1.0, 3.0, 10.0)
NUM_FOLDS = 3


def majority(train_gold_N: Ints, num_rows: int, num_classes: int) -> Floats:
    """Class shares of the train split for every row, [num_rows, C]: predicts the most frequent class."""
    shares_C = np.bincount(train_gold_N, minlength=num_classes) / len(train_gold_N)
    return np.tile(shares_C, (num_rows, 1))


def tfidf_logistic_regression(train: Judged, test: Judged, num_classes: int) -> Floats:
    """Class probabilities [N, C] of TF-IDF (words of the query, words of the title) + logistic regression.

    Query and title are weighted separately, so a word may mean different things in the two. The penalty is the one
    with the best macro-F1 in cross-validation by query within the train split: with a fixed one the baseline is easy
    to understate (on ESCI 20 to 25 points of macro-F1). A class without train rows gets probability 0.
    """
    parts_train, parts_test = [], []
    for name in ("query", "title"):
        vectorizer = TfidfVectorizer(sublinear_tf=True, max_features=MAX_FEATURES)
        try:
            parts_train.append(vectorizer.fit_transform(train.table.column(name).to_pylist()))
        except ValueError:  # no word at all, e.g. only punctuation
            continue
        parts_test.append(vectorizer.transform(test.table.column(name).to_pylist()))
    if not parts_train or len(np.unique(train.gold_N)) < 2:
        return majority(train.gold_N, len(test), num_classes)
    words_NV = hstack(parts_train).tocsr()
    penalty = _best_penalty(words_NV, train, num_classes)
    model = LogisticRegression(C=penalty, max_iter=500).fit(words_NV, train.gold_N)
    probs_NC = np.zeros((len(test), num_classes))
    probs_NC[:, model.classes_] = model.predict_proba(hstack(parts_test).tocsr())
    return probs_NC


def _best_penalty(words_NV: csr_matrix, train: Judged, num_classes: int) -> float:
    """The inverse penalty whose pooled out-of-fold predictions have the best macro-F1; the first where none differs."""
    if len(np.unique(train.query_N)) < NUM_FOLDS:
        return INVERSE_PENALTIES[0]
    folds = list(GroupKFold(NUM_FOLDS).split(words_NV, train.gold_N, train.query_N))
    if any(len(np.unique(train.gold_N[fit_N])) < 2 for fit_N, _ in folds):
        return INVERSE_PENALTIES[0]
    scores = []
    for penalty in INVERSE_PENALTIES:
        predicted_N = np.empty_like(train.gold_N)
        for fit_N, held_out_N in folds:
            model = LogisticRegression(C=penalty, max_iter=500).fit(words_NV[fit_N], train.gold_N[fit_N])
            predicted_N[held_out_N] = model.predict(words_NV[held_out_N])
        scores.append(float(macro_f1(confusion(train.gold_N, predicted_N, num_classes))))
    return INVERSE_PENALTIES[int(np.argmax(scores))]
