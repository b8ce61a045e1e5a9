"""The student's objective: L_cls + lambda * L_guide (arXiv 2601.21611 eq. 8-9).

B batch, C classes, E size of the rationale embedding.
"""

from typing import NamedTuple

import torch
from torch.nn import functional


class PairLosses(NamedTuple):
    """Loss of each pair, before any mean."""

    classification_B: torch.Tensor
    guidance_B: torch.Tensor  # zero where a pair has no guidance


def guidance_losses(
    guide_BE: torch.Tensor, target_BE: torch.Tensor, has_guidance_B: torch.Tensor, reduction: str
) -> torch.Tensor:
    """Distance of each projected latent from its rationale embedding (eq. 8); zero where there is no guidance.

    The text of the paper says MSE, its formula is the squared norm: `reduction` is `mean` (over the E dimensions) or
    `sum`, which is E times as much. Targets of pairs without guidance are ignored, whatever they hold. Raises
    ValueError on another reduction.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction {reduction!r}: not mean or sum")
    target_BE = torch.where(has_guidance_B[:, None], target_BE, guide_BE.detach())
    squares_BE = (guide_BE - target_BE).square()
    return squares_BE.mean(1) if reduction == "mean" else squares_BE.sum(1)


def pair_losses(
    logits_BC: torch.Tensor,
    label_B: torch.Tensor,
    guide_BE: torch.Tensor | None,
    target_BE: torch.Tensor | None,
    has_guidance_B: torch.Tensor,
    reduction: str = "mean",
    class_weight_C: torch.Tensor | None = None,
) -> PairLosses:
    """Cross-entropy (times the weight of the pair's class) and guidance of each pair.

    The class weight multiplies a pair's cross-entropy and is not divided out again by the weights of its batch, as
    torch's weighted mean does: the loss of a pair must not depend on its neighbours, nor on the number of workers.
    """
    classification_B = functional.cross_entropy(logits_BC, label_B, reduction="none")
    if class_weight_C is not None:
        classification_B = classification_B * class_weight_C[label_B]
    if guide_BE is None or target_BE is None:
        return PairLosses(classification_B, torch.zeros_like(classification_B))
    return PairLosses(classification_B, guidance_losses(guide_BE, target_BE, has_guidance_B, reduction))


def total_loss(losses: PairLosses, weight: float, num_pairs: float) -> torch.Tensor:
    """Sum over pairs of L_cls + weight * L_guide, over `num_pairs` (eq. 9; published weight, lambda, 0.1).

    The paper does not say what a batch with some unguided pairs divides by; we take all its pairs, so that each pair
    counts the same whatever stands beside it and two workers sum to what one computes.
    """
    return (losses.classification_B.sum() + weight * losses.guidance_B.sum()) / num_pairs
