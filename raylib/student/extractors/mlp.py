"""MLP extractor (arXiv 2601.21611 eq. 10-11): r = masked mean of a two-layer MLP of each token.

B batch, L tokens, D hidden size, R width of r.
"""

import torch
from torch import nn

from raylib.kernels.onednn import OneDnnLinear


class MlpExtractor(nn.Module):
    """r = W2 mean_i(relu(W1 h_i + b1)) + b2: the last linear layer commutes with the mean and runs once a sequence.

    The paper does not name the activation; we take ReLU, the plainest.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.inner = OneDnnLinear(size, width)
        self.outer = nn.Linear(width, width)

    def forward(self, hidden_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        """latent_BR; padding does not count."""
        inner_BLR = torch.relu(self.inner(hidden_BLD))
        mask_BL = mask_BL.to(inner_BLR.dtype)
        weight_BL = mask_BL / mask_BL.sum(1, keepdim=True)
        latent_BR: torch.Tensor = self.outer(torch.einsum("bl,blr->br", weight_BL, inner_BLR))
        return latent_BR
