"""The student's loss: L_cls + lambda * what its objective adds (arXiv 2601.21611 eq. 8-9).

B batch, C classes.
"""

import torch
from torch.nn import functional


def classification_losses(
    logits_BC: torch.Tensor,
    label_B: torch.Tensor,
    class_weight_C: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Cross-entropy of each pair, times the weight of its class, [B].

    The class weight multiplies a pair's cross-entropy and is not divided out again by the weights of its batch, as
    torch's weighted mean does: the loss of a pair must not depend on its neighbours, nor on the number of workers.
    """
    losses_B = functional.cross_entropy(logits_BC, label_B, reduction="none", label_smoothing=label_smoothing)
    return losses_B if class_weight_C is None else losses_B * class_weight_C[label_B]


def soft_label_losses(logits_BC: torch.Tensor, teacher_prob_BC: torch.Tensor) -> torch.Tensor:
    """KL divergence of the student's classes from the teacher's, [B]; zero where the teacher's row is all zeros.

    Temperature 1 (Hinton et al. 2015, arXiv 1503.02531, soften further; the papers here use no soft labels).
    """
    log_prob_BC = logits_BC.log_softmax(1)
    return functional.kl_div(log_prob_BC, teacher_prob_BC, reduction="none").sum(1) * (teacher_prob_BC.sum(1) > 0)


def total_loss(
    classification_B: torch.Tensor, auxiliary_B: torch.Tensor | None, weight: float, num_pairs: float
) -> torch.Tensor:
    """Sum over pairs of L_cls + weight * auxiliary, over `num_pairs` (eq. 9; published weight, lambda, 0.1).

    The paper does not say what a batch with some unguided pairs divides by; we take all its pairs, so that each pair
    counts the same whatever stands beside it and two workers sum to what one computes.
    """
    summed = classification_B.sum()
    return (summed if auxiliary_B is None else summed + weight * auxiliary_B.sum()) / num_pairs
