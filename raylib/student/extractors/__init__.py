"""Extractors R(H, M) -> r of arXiv 2601.21611, section 5: token states to one latent vector.

Each file holds one extractor in its cheap algebraic form, which is the printed formula with the sums reordered.
All of them take hidden_BLD (float) and mask_BL (bool, at least one valid token a row) and return latent_BR.
"""

from collections.abc import Sequence

import torch
from torch import nn

from raylib.student.extractors.gat import GatExtractor
from raylib.student.extractors.mlp import MlpExtractor
from raylib.student.extractors.poly import PolyExtractor

NAMES = ("none", "mlp", "poly", "gat")


def build_extractor(name: str, size: int, width: int | None, num_latents: int = 1) -> nn.Module | None:
    """The extractor called `name` for token states of `size`; None for `none`, where r = h_cls.

    `width` is the dimension of r (and of the MLP's hidden layer); None = `size`, the one that fits the published
    parameter counts (1.18 M, 0.03 M and 0.59 M at size 768). Poly's codes live in the space of the token states, so it
    has no other width. `num_latents` extractors give as many latents. Raises ValueError on another name or a width
    that the extractor cannot have.
    """
    if num_latents > 1:
        return SideBySide([build_extractor(name, size, width) for _ in range(num_latents)])
    if name == "none":
        return None
    if name == "poly":
        if width not in (None, size):
            raise ValueError(f"poly: r is a mixture of token states, so its width is {size}, not {width}")
        return PolyExtractor(size)
    if name == "mlp":
        return MlpExtractor(size, width or size)
    if name == "gat":
        return GatExtractor(size, width or size)
    raise ValueError(f"extractor {name!r}: not one of {', '.join(NAMES)}")


class SideBySide(nn.Module):
    """Several extractors over the same token states, their latents one behind the other: one a perspective."""

    def __init__(self, extractors: Sequence[nn.Module | None]) -> None:
        super().__init__()
        if None in extractors:
            raise ValueError("extractor none has one latent, h_cls")
        self.extractors = nn.ModuleList(extractor for extractor in extractors if extractor is not None)
        self.width = sum(int(extractor.width) for extractor in self.extractors)  # type: ignore[arg-type]

    def forward(self, hidden_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        """latent_BR, R the sum of the widths."""
        return torch.cat([extractor(hidden_BLD, mask_BL) for extractor in self.extractors], dim=1)
