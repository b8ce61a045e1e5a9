"""Headline metrics from a confusion matrix; numpy only."""

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


def confusion(gold: Counts, predicted: Counts, num_classes: int) -> Counts:
    """counts_CC[g, p] = pairs of gold class g predicted as p."""
    return np.bincount(gold * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def accuracy(counts_CC: Counts) -> float:
    """Share of pairs on the diagonal."""
    return float(np.trace(counts_CC) / counts_CC.sum())


def macro_f1(counts_CC: Counts) -> float:
    """Unweighted mean of F1 over the classes that occur as gold or as prediction (scikit-learn's definition)."""
    support_C = counts_CC.sum(1) + counts_CC.sum(0)
    occurs_C = support_C > 0
    return float(np.mean(2 * np.diag(counts_CC)[occurs_C] / support_C[occurs_C]))


def summarise(counts_CC: Counts) -> dict[str, float | int]:
    """Accuracy and macro-F1 of the predictions, and of always answering the most frequent gold class."""
    majority_CC = np.zeros_like(counts_CC)
    majority_CC[:, counts_CC.sum(1).argmax()] = counts_CC.sum(1)
    return {
        "num_pairs": int(counts_CC.sum()),
        "accuracy": accuracy(counts_CC),
        "macro_f1": macro_f1(counts_CC),
        "majority_accuracy": accuracy(majority_CC),
        "majority_macro_f1": macro_f1(majority_CC),
    }
