"""Temperature scaling: one number that makes a student's probabilities honest and changes none of its labels.

N pairs, C classes. Source: arXiv 1706.04599; the papers of the student do not say how its scores are calibrated.
"""

import torch
from torch.nn import functional

SHARPEST, FLATTEST = 10.0, 0.1  # bounds of 1 / temperature; a student that is always right would go to infinity
NUM_HALVINGS = 50


def fit_temperature(logits_NC: torch.Tensor, gold_N: torch.Tensor) -> float:
    """The temperature in [0.1, 10] with the lowest mean cross-entropy of softmax(logits / temperature).

    Take pairs that did not train the student. Cross-entropy is convex in 1 / temperature, so its slope is bisected.
    Raises ValueError without a pair.
    """
    if len(gold_N) == 0:
        raise ValueError("no pair to calibrate on")
    logits_NC = logits_NC.double()
    gold_logit_N = logits_NC.gather(1, gold_N[:, None])[:, 0]
    low, high = FLATTEST, SHARPEST
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        slope = ((middle * logits_NC).softmax(1) * logits_NC).sum(1).sub(gold_logit_N).mean()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return 2 / (low + high)


def cross_entropy(logits_NC: torch.Tensor, gold_N: torch.Tensor, temperature: float) -> float:
    """Mean cross-entropy in nats."""
    return float(functional.cross_entropy(logits_NC.double() / temperature, gold_N))
