"""LRKD: the latent is pulled to the embedding of the teacher's rationale (arXiv 2601.21611 eq. 8).

B batch, K latents, one for each embedding of a pair (the paper has one), R width of a latent, E size of an embedding.
"""

from typing import Any

import torch
from torch import nn

from raylib.student.judged import Targets


class Lrkd(nn.Module):
    """A projection of each latent to the embedding's size, and the distance between the two.

    The sizes differ (768 and 1024 in the paper, which does not say how it bridges them); one linear layer is ours.
    """

    def __init__(self, latent_size: int, embedding_size: int, reduction: str = "mean", num_latents: int = 1) -> None:
        super().__init__()
        self.reduction = reduction
        self.projections = nn.ModuleList(
            nn.Linear(latent_size // num_latents, embedding_size) for _ in range(num_latents)
        )

    def forward(self, _student: Any, output: Any, _inputs: Any, targets: Targets) -> torch.Tensor:
        """Distance of each pair, the mean over its latents, [B]."""
        guide_BKE = self.guides(output.latent_BR)
        return guidance_losses(guide_BKE, targets.embedding_BKE, targets.is_guided_BK, self.reduction).mean(1)

    def guides(self, latents: torch.Tensor) -> torch.Tensor:
        """The latents, [B, K * R] side by side, projected to the embeddings' space, [B, K, E]."""
        pieces = latents.chunk(len(self.projections), dim=1)
        return torch.stack([project(piece) for project, piece in zip(self.projections, pieces, strict=True)], dim=1)


def guidance_losses(
    guide_BKE: torch.Tensor, target_BKE: torch.Tensor, is_guided_BK: torch.Tensor, reduction: str
) -> torch.Tensor:
    """Distance of each projected latent from its rationale embedding (eq. 8), [B, K]; zero without guidance.

    The text of the paper says MSE, its formula is the squared norm: `reduction` is `mean` (over the E dimensions) or
    `sum`, which is E times as much. Targets of pairs without guidance are ignored, whatever they hold. Raises
    ValueError on another reduction.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction {reduction!r}: not mean or sum")
    target_BKE = torch.where(is_guided_BK[:, :, None], target_BKE, guide_BKE.detach())
    squares_BKE = (guide_BKE - target_BKE).square()
    return squares_BKE.mean(2) if reduction == "mean" else squares_BKE.sum(2)
