"""Top-k and top-p without sorting the vocabulary, as a logits processor for vLLM's engine on a CPU.

vLLM's own way on a CPU sorts all logits of every token (`apply_top_k_top_p_pytorch` in vllm/v1/sample/ops). Only the k
largest can be drawn, and finding those is far cheaper: see benchmarks/results/annotate.md. What remains to be drawn
from, and so the answers, are the same. On a GPU vLLM has kernels for this.

N requests, V tokens of the vocabulary, k kept.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def truncate(logits_NV: "torch.Tensor", top_k: int, top_p: float) -> "torch.Tensor":
    """Set in place to minus infinity all but the `top_k` largest logits and, of these, all outside the nucleus.

    The nucleus are the likeliest tokens until their probabilities, renormalised over the `top_k`, add up to `top_p`.
    Of equal logits at the border vLLM keeps all and this the first ones that are found.
    """
    import torch

    kept_NK, place_NK = logits_NV.topk(min(top_k, logits_NV.shape[1]), dim=-1)
    kept_NK, place_NK = kept_NK.flip(-1), place_NK.flip(-1)  # ascending, as vLLM sums them
    is_outside_NK = kept_NK.softmax(-1).cumsum(-1) <= 1 - top_p
    is_outside_NK[:, -1] = False
    kept_NK = kept_NK.masked_fill(is_outside_NK, -torch.inf)
    return logits_NV.fill_(-torch.inf).scatter_(-1, place_NK, kept_NK)


def truncating_processor(top_k: int, top_p: float) -> type[Any]:
    """A class for the `logits_processors` of `vllm.LLM`: all requests of the engine share the two settings."""
    from vllm.v1.sample.logits_processor import LogitsProcessor

    class Truncation(LogitsProcessor):
        """Called with logits [N, V] after the temperature."""

        def __init__(self, *_: Any) -> None:
            pass

        def apply(self, logits: "torch.Tensor") -> "torch.Tensor":
            return truncate(logits, top_k, top_p)

        def is_argmax_invariant(self) -> bool:
            return True

        def update_state(self, batch_update: Any) -> None:
            pass

    return Truncation
