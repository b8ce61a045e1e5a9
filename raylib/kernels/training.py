"""The same training of a BERT encoder on a CPU in less time: kernels that torch has but does not choose.

On a CPU torch draws dropout's mask one number at a time (a fifth of a step in bfloat16), sends float32 products to a
library that is half as fast as oneDNN on many processors, and computes attention with dropout by way of a general path
with masks. The weights keep their names and values; only what computes is another class.

B batch, H heads, L tokens, E size of a head.
"""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from raylib.kernels.fused import BERTS
from raylib.kernels.onednn import OneDnnLinear

ATTENTION = "tricot_cpu"
LEVELS = 1 << 16  # of the random numbers behind dropout: its probability is exact to 1 / LEVELS


def speed_up(backbone: Any) -> None:
    """Exchange, in place, how a backbone of transformers computes on this CPU; on a GPU nothing is exchanged.

    The function is the same: dropout draws other masks, with the same probability.
    """
    if torch.cuda.is_available():
        return
    for module in backbone.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDnnLinear
        elif type(module) is nn.Dropout:
            module.__class__ = FastDropout
    if backbone.config.model_type in BERTS:
        AttentionInterface.register(ATTENTION, attention)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        backbone.set_attn_implementation(ATTENTION)


def drop(values: torch.Tensor, probability: float) -> torch.Tensor:
    """Each value 0 with `probability`, else divided by 1 - `probability`; four numbers of 16 bits from one draw."""
    size = values.numel()
    draws = torch.empty((size + 3) // 4, dtype=torch.int64).random_(-(2**63), None)  # type: ignore[arg-type]
    is_kept = draws.view(torch.int16)[:size] >= round(probability * LEVELS) - LEVELS // 2
    return values * is_kept.view(values.shape).to(values.dtype).mul_(1.0 / (1.0 - probability))


class FastDropout(nn.Dropout):
    """Dropout of a tensor on a CPU."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """`values` in evaluation mode, else `drop` of them."""
        return drop(values, self.p) if self.training and self.p else values


def attention(
    _module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of short texts as two batched products; query, key and value are [B, H, L, E].

    As transformers calls it: returns [B, L, H, E] and no weights. `attention_mask` is true where a token may be seen.
    """
    batch, heads, length, size = query.shape
    query, key, value = (part.reshape(batch * heads, length, size) for part in (query, key, value))
    affinity = torch.bmm(query * (scaling or size**-0.5), key.transpose(1, 2)).view(batch, heads, length, length)
    if attention_mask is not None:
        bias = torch.zeros(attention_mask.shape, dtype=affinity.dtype)
        affinity.add_(bias.masked_fill_(~attention_mask, torch.finfo(affinity.dtype).min))
    weight = affinity.softmax(-1, dtype=torch.float32).to(value.dtype)
    if dropout:
        weight = drop(weight, dropout)
    context = torch.bmm(weight.view(batch * heads, length, length), value)
    return context.view(batch, heads, length, size).transpose(1, 2), None
