"""Poly extractor (arXiv 2601.21611 eq. 12-13): K learned codes attend to the tokens, r = their mean context.

B batch, L tokens, D hidden size, K codes.
"""

import torch
from torch import nn

NUM_CODES = 32


class PolyExtractor(nn.Module):
    """The mean over codes commutes with the sum over tokens: r = sum_i (mean_k A_ik) h_i, one weight a token.

    The paper does not give the codes' initial values; we take a standard normal, so that with the scale 1 / sqrt(d)
    the codes differ from the start.
    """

    def __init__(self, size: int, num_codes: int = NUM_CODES) -> None:
        super().__init__()
        self.width = size
        self.codes_KD = nn.Parameter(torch.randn(num_codes, size))

    def forward(self, hidden_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        """latent_BD; padding gets no attention."""
        scale = hidden_BLD.shape[-1] ** -0.5
        affinity_BKL = torch.einsum("kd,bld->bkl", self.codes_KD * scale, hidden_BLD)
        attention_BKL = affinity_BKL.masked_fill(~mask_BL[:, None, :], float("-inf")).softmax(-1)
        return torch.einsum("bl,bld->bd", attention_BKL.mean(1), hidden_BLD)
