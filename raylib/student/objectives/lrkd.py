"""LRKD: the latent is pulled to the embedding of the teacher's rationale (arXiv 2601.21611 eq. 8).

B batch, R width of the latent, E size of the rationale embedding.
"""

from typing import Any

import torch
from torch import nn

from raylib.student.data import Targets


class Lrkd(nn.Module):
    """A projection of the latent to the embedding's size, and the distance between the two.

    The sizes differ (768 and 1024 in the paper, which does not say how it bridges them); one linear layer is ours.
    """

    def __init__(self, latent_size: int, embedding_size: int, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction
        self.projection = nn.Linear(latent_size, embedding_size)

    def forward(self, _student: Any, output: Any, _inputs: Any, targets: Targets) -> torch.Tensor:
        """Distance of each pair, [B]."""
        guide_BE = self.projection(output.latent_BR)
        return guidance_losses(guide_BE, targets.embedding_BE, targets.is_guided_B, self.reduction)


def guidance_losses(
    guide_BE: torch.Tensor, target_BE: torch.Tensor, is_guided_B: torch.Tensor, reduction: str
) -> torch.Tensor:
    """Distance of each projected latent from its rationale embedding (eq. 8); zero where there is no guidance.

    The text of the paper says MSE, its formula is the squared norm: `reduction` is `mean` (over the E dimensions) or
    `sum`, which is E times as much. Targets of pairs without guidance are ignored, whatever they hold. Raises
    ValueError on another reduction.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction {reduction!r}: not mean or sum")
    target_BE = torch.where(is_guided_B[:, None], target_BE, guide_BE.detach())
    squares_BE = (guide_BE - target_BE).square()
    return squares_BE.mean(1) if reduction == "mean" else squares_BE.sum(1)
