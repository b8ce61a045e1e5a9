"""float32 matrix products by oneDNN, forward and backward: on many processors twice as fast as what torch chooses.

T rows of a product, I and O sizes of its input and output.
"""

from typing import Any

import torch
from torch import nn

HAS_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


class OneDnnLinear(nn.Linear):
    """A linear layer whose float32 products on a CPU, forward and backward, are oneDNN's.

    Weights, names and function are those of nn.Linear.
    """

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """`inputs` [..., I] -> [..., O]; other precisions, as under autocast, go where torch sends them."""
        if (
            not HAS_ONEDNN
            or inputs.device.type != "cpu"
            or inputs.dtype != torch.float32
            or self.bias is None
            or torch.is_autocast_enabled("cpu")
        ):
            return super().forward(inputs)
        outputs: torch.Tensor = _Product.apply(inputs.flatten(0, -2), self.weight, self.bias)  # type: ignore[no-untyped-call]
        return outputs.view(*inputs.shape[:-1], -1)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input_TI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(input_TI, weight_OI)
        return _product(input_TI, weight_OI, bias_O)

    @staticmethod
    def backward(ctx: Any, grad_TO: torch.Tensor) -> Any:  # type: ignore[override]
        input_TI, weight_OI = ctx.saved_tensors
        grad_TO = grad_TO.contiguous()  # that of a sum has strides of 0
        grad_TI = _product(grad_TO, weight_OI.t()) if ctx.needs_input_grad[0] else None
        return grad_TI, _product(grad_TO.t(), input_TI.t()), grad_TO.sum(0)


def _product(one: torch.Tensor, other: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """one @ other^T + bias; any of them may be a transposed view."""
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(one, other, bias, "none", [], "")
    return found
