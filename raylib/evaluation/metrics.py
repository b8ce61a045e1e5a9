"""Classification and calibration measures, all computed from confusion matrices so that they resample cheaply.

Shape suffixes: N rows, C classes, D = C + 1 columns of a confusion matrix (the last one counts answers without a
label), M bins. A leading `...` means that any batch of matrices is accepted, e.g. bootstrap replicates.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
NO_LABEL = -1


def confusion(gold_N: Ints, predicted_N: Ints, num_classes: int) -> Floats:
    """Counts [C, C + 1], rows gold, columns predicted; a predicted class of -1 (no label) lands in the last column."""
    columns_N = np.where(predicted_N == NO_LABEL, num_classes, predicted_N)
    flat = np.bincount(gold_N * (num_classes + 1) + columns_N, minlength=num_classes * (num_classes + 1))
    return flat.reshape(num_classes, num_classes + 1).astype(np.float64)


def accuracy(confusion_CD: Floats) -> Floats:
    """Share of rows on the diagonal, shape `...`; an answer without a label counts as wrong. NaN without rows."""
    right = np.trace(confusion_CD[..., :-1], axis1=-2, axis2=-1)
    return _ratio(right, confusion_CD.sum(axis=(-2, -1)))


def per_class_recall(confusion_CD: Floats) -> Floats:
    """Recall by class, shape [..., C]; NaN for a class without gold rows."""
    right_C = np.diagonal(confusion_CD[..., :-1], axis1=-2, axis2=-1)
    return _ratio(right_C, confusion_CD.sum(axis=-1))


def per_class_f1(confusion_CD: Floats) -> Floats:
    """F1 by class, shape [..., C]; 0 for a class that is never right, NaN for one neither in gold nor predicted."""
    right_C = np.diagonal(confusion_CD[..., :-1], axis1=-2, axis2=-1)
    gold_C = confusion_CD.sum(axis=-1)
    predicted_C = confusion_CD[..., :-1].sum(axis=-2)
    return _ratio(2 * right_C, gold_C + predicted_C)


def macro_f1(confusion_CD: Floats) -> Floats:
    """Unweighted mean of F1 over the classes that occur in gold or predictions, shape `...`.

    The paper (arXiv 2601.21611) does not say how absent classes count; we take scikit-learn's rule.
    """
    f1_C = per_class_f1(confusion_CD)
    present_C = ~np.isnan(f1_C)
    return _ratio(np.where(present_C, f1_C, 0.0).sum(axis=-1), present_C.sum(axis=-1))


def reliability(probs_NC: Floats, gold_N: Ints, num_bins: int = 15) -> Floats:
    """Reliability bins [M, 3]: rows, mean confidence, accuracy, for equal-width bins of the highest probability.

    Empty bins hold zeros. Confidence 0 falls into the first bin, every bin includes its upper edge.
    """
    confidence_N = probs_NC.max(axis=1)
    right_N = (probs_NC.argmax(axis=1) == gold_N).astype(np.float64)
    bin_N = np.clip(np.ceil(confidence_N * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    rows_M = np.bincount(bin_N, minlength=num_bins).astype(np.float64)
    safe_M = np.maximum(rows_M, 1)
    confidence_M = np.bincount(bin_N, confidence_N, num_bins) / safe_M
    accuracy_M = np.bincount(bin_N, right_N, num_bins) / safe_M
    return np.stack([rows_M, confidence_M, accuracy_M], axis=1)


def calibration_error(bins_M3: Floats) -> float:
    """Expected calibration error: mean |confidence - accuracy| over bins, weighted by rows (Guo et al. 2017)."""
    rows_M, confidence_M, accuracy_M = bins_M3.T
    return float((rows_M * np.abs(confidence_M - accuracy_M)).sum() / rows_M.sum())


def log_loss(probs_NC: Floats, gold_N: Ints) -> float:
    """Mean negative log-likelihood of the gold class in nats; probabilities are clipped at 1e-12."""
    return float(-np.log(np.clip(probs_NC[np.arange(len(gold_N)), gold_N], 1e-12, 1.0)).mean())


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator > 0, numerator / denominator, np.nan)
