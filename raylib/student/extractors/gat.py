"""GAT extractor (arXiv 2601.21611 eq. 14-16): graph attention over the complete graph of valid tokens, then the mean.

B batch, L tokens (i attends to j), D hidden size, R width of r.
"""

import torch
from torch import nn

SLOPE = 0.2


class GatExtractor(nn.Module):
    """r = W sum_j w_j h_j with w_j = mean_i softmax_j(leaky_relu(a_from . W h_i + a_to . W h_j)).

    Three steps of algebra take the cost from L x L x 2R products to two scalars a token:
    a . [W h_i ; W h_j] = (W^T a_from) . h_i + (W^T a_to) . h_j; the mean over i commutes with the sum over j; and W,
    being linear, applies to the weighted sum once a sequence. W has no bias, as in the formula. The paper does not
    give the slope of LeakyReLU; we take 0.2, that of the original GAT (arXiv 1710.10903).
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.project = nn.Linear(size, width, bias=False)
        self.from_R = nn.Parameter(torch.empty(width))
        self.to_R = nn.Parameter(torch.empty(width))
        bound = (3.0 / width) ** 0.5
        nn.init.uniform_(self.from_R, -bound, bound)
        nn.init.uniform_(self.to_R, -bound, bound)

    def forward(self, hidden_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        """latent_BR; padding neither attends nor is attended to."""
        ends_2D = torch.stack([self.from_R, self.to_R]) @ self.project.weight
        from_BL, to_BL = (hidden_BLD @ ends_2D.T).unbind(-1)
        affinity_BLL = nn.functional.leaky_relu(from_BL[:, :, None] + to_BL[:, None, :], SLOPE)
        attention_BLL = affinity_BLL.masked_fill(~mask_BL[:, None, :], float("-inf")).softmax(-1)
        mask_BL = mask_BL.to(attention_BLL.dtype)
        row_weight_BL = mask_BL / mask_BL.sum(1, keepdim=True)
        weight_BL = torch.einsum("bi,bij->bj", row_weight_BL, attention_BLL)
        latent_BR: torch.Tensor = self.project(torch.einsum("bl,bld->bd", weight_BL, hidden_BLD))
        return latent_BR
