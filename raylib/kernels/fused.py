"""A BERT encoder on the CPU with oneDNN's fused kernels: the function of the plain modules, several times as fast.

Weights are packed once; bias, GELU and residual are added within the matrix products; queries, keys and values are one
product; attention over short texts is two batched products, as the flash kernel costs more there than it saves. As
float32 and bfloat16, and as int8: weights by output channel, activations by fixed ranges that are measured once (taken
from each batch, a pair's score would depend on its neighbours).

In int8 a few channels of the activations are many times as large as the others; they share their size with the
weights, as in SmoothQuant (arXiv 2211.10438, alpha 0.5). The product that closes the feed-forward part, whose inputs
have the widest range, stays in bfloat16.

B batch, L tokens, T = B x L, D hidden size, H heads, N layers, P = 3 places.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from raylib.errors import InputError

BERTS = ("bert", "roberta", "xlm-roberta")  # they differ in their embeddings, which are used as they are
DTYPES = ("float32", "bfloat16", "int8")
FLASH_FROM = 160  # tokens a text from which the flash kernel is the faster one, about
# Where a layer's activations are quantised: before queries, keys and values, before the attention's output, and before
# the feed-forward part.
PLACES = ("attention.self.query", "attention.output.dense", "intermediate.dense")
ALPHA = 0.5  # share of the channels' sizes that the weights take over
LEVELS = 255
TINY = 1e-5
Product = Callable[..., torch.Tensor]


def can_fuse(backbone: nn.Module) -> bool:
    """Whether `FusedEncoder` computes this backbone here: one of BERTS with exact GELU, on a CPU, torch with oneDNN."""
    config: Any = backbone.config
    return (
        config.model_type in BERTS
        and config.hidden_act == "gelu"
        and not getattr(config, "is_decoder", False)
        and getattr(config, "position_embedding_type", "absolute") == "absolute"
        and next(backbone.parameters()).device.type == "cpu"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    )


class FusedEncoder(nn.Module):
    """Stands in for a model of BERTS in inference; its weights are copies, fixed when it is made."""

    def __init__(self, backbone: Any, dtype: str = "float32", ranges: torch.Tensor | None = None) -> None:
        """Pack the weights of `backbone`. `ranges` [N, P, 2, D], from `activation_ranges`, for int8.

        Raises ValueError for an unknown dtype, InputError for int8 without ranges or with those of another model.
        """
        super().__init__()
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype!r}: not one of {', '.join(DTYPES)}")
        self.config = backbone.config
        expected = (self.config.num_hidden_layers, len(PLACES), 2, self.config.hidden_size)
        if dtype == "int8" and (ranges is None or tuple(ranges.shape) != expected):
            found = "none" if ranges is None else f"of shape {tuple(ranges.shape)}"
            raise InputError(f"dtype int8 needs activation ranges of shape {expected}, found {found}; distil again")
        self.embeddings = backbone.embeddings
        self._float = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        self._layers = [
            _Layer(layer, self.config.num_attention_heads, self._float, ranges[n] if dtype == "int8" else None)  # type: ignore[index]
            for n, layer in enumerate(backbone.encoder.layer)
        ]

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        **_: Any,
    ) -> BaseModelOutput:
        """`last_hidden_state` [B, L, D]; states of padding are finite and mean nothing.

        Takes and ignores what else callers give to a model of transformers (`return_dict`).
        """
        hidden_BLD = self.embeddings(input_ids=input_ids, token_type_ids=token_type_ids).to(self._float)
        batch, length, size = hidden_BLD.shape
        bias_B11L = None
        if not bool(attention_mask.all()):
            absent_B11L = attention_mask[:, None, None, :] == 0
            bias_B11L = torch.zeros(absent_B11L.shape, dtype=self._float).masked_fill(absent_B11L, -torch.inf)
        hidden_TD = hidden_BLD.reshape(batch * length, size)
        for layer in self._layers:
            hidden_TD = layer(hidden_TD, batch, bias_B11L)
        return BaseModelOutput(last_hidden_state=hidden_TD.view(batch, length, size))


class _Layer:
    """One layer; every product adds what comes with it."""

    def __init__(self, layer: Any, num_heads: int, dtype: torch.dtype, ranges_P2D: torch.Tensor | None) -> None:
        attention, self._num_heads = layer.attention.self, num_heads
        merged = nn.Linear(1, 1)
        parts = [attention.query, attention.key, attention.value]
        merged.weight = nn.Parameter(torch.cat([part.weight for part in parts]))
        merged.bias = nn.Parameter(torch.cat([part.bias for part in parts]))
        self._norm_attention = _norm(layer.attention.output.LayerNorm, dtype)
        self._norm_output = _norm(layer.output.LayerNorm, dtype)
        out, up, down = layer.attention.output.dense, layer.intermediate.dense, layer.output.dense
        self._qkv: Product
        if ranges_P2D is None:
            self._qkv, self._out = _product(merged, dtype), _product(out, dtype)
            self._up, self._down = _product(up, dtype, is_gelu=True), _product(down, dtype)
        else:
            self._qkv, self._out = _int8_product(merged, ranges_P2D[0]), _int8_product(out, ranges_P2D[1])
            self._up = _int8_product(up, ranges_P2D[2], is_gelu=True, result=torch.bfloat16)
            last = _product(down, torch.bfloat16)
            self._down = lambda inner_TF, residual_TD: last(inner_TF).float().add_(residual_TD)

    def __call__(self, hidden_TD: torch.Tensor, batch: int, bias_B11L: torch.Tensor | None) -> torch.Tensor:
        context_TD = self._attend(self._qkv(hidden_TD), batch, bias_B11L)
        hidden_TD = self._norm_attention(self._out(context_TD, hidden_TD))
        return self._norm_output(self._down(self._up(hidden_TD), hidden_TD))

    def _attend(self, qkv_TX: torch.Tensor, batch: int, bias_B11L: torch.Tensor | None) -> torch.Tensor:
        heads, length = self._num_heads, len(qkv_TX) // batch
        qkv_3BHLE = qkv_TX.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
        if length >= FLASH_FROM:
            context_BHLE = nn.functional.scaled_dot_product_attention(*qkv_3BHLE.unbind(0), attn_mask=bias_B11L)
        else:
            query, key, value = (part.reshape(batch * heads, length, -1) for part in qkv_3BHLE.unbind(0))
            affinity = torch.bmm(query, key.transpose(1, 2)).mul_(query.shape[-1] ** -0.5)
            if bias_B11L is not None:
                affinity.view(batch, heads, length, length).add_(bias_B11L)
            weight = affinity.softmax(-1, dtype=torch.float32).to(value.dtype)  # bfloat16 softmax is the slower one
            context_BHLE = torch.bmm(weight, value).view(batch, heads, length, -1)
        return context_BHLE.transpose(1, 2).reshape(batch * length, -1)


def _norm(norm: nn.LayerNorm, dtype: torch.dtype) -> Product:
    weight, bias = norm.weight.detach().to(dtype), norm.bias.detach().to(dtype)
    return lambda hidden_TD: torch.layer_norm(hidden_TD, norm.normalized_shape, weight, bias, norm.eps)


def _product(linear: nn.Linear, dtype: torch.dtype, is_gelu: bool = False) -> Product:
    """A function of x and, where it is to be added, the residual."""
    kernel = torch.ops.mkldnn._linear_pointwise
    packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().to(dtype).contiguous(), None)
    bias = linear.bias.detach().to(dtype)
    after: tuple[str, list[float], str] = ("gelu", [], "none") if is_gelu else ("none", [], "")

    def multiply(x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        result: torch.Tensor = (
            kernel(x, packed, bias, *after) if residual is None else kernel.binary(x, residual, packed, bias, "add")
        )
        return result

    return multiply


def _int8_product(
    linear: nn.Linear, range_2D: torch.Tensor, is_gelu: bool = False, result: torch.dtype = torch.float32
) -> Product:
    """As `_product`, with weights and x in eight bits; x is float32."""
    weight_FD, bias = linear.weight.detach().float(), linear.bias.detach().float()
    largest_D = range_2D.abs().amax(0).clamp(min=TINY)
    smooth_D = largest_D**ALPHA / weight_FD.abs().amax(0).clamp(min=TINY) ** (1 - ALPHA)
    low, high = (range_2D / smooth_D).aminmax()
    scale, zero = _scale(min(low.item(), 0.0), max(high.item(), 0.0))
    weight_FD = weight_FD * smooth_D
    weight_scale_F = weight_FD.abs().amax(1).clamp(min=TINY) / 127
    packed = torch.ops.onednn.qlinear_prepack((weight_FD / weight_scale_F[:, None]).round().to(torch.int8), None)
    weight_zero_F = torch.zeros(len(bias), dtype=torch.int32)
    after: tuple[str, list[float], str] = ("gelu", [], "none") if is_gelu else ("none", [], "")
    shrink_D = 1 / smooth_D

    def multiply(x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        found: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            _quantised(x * shrink_D, scale, zero),
            scale,
            zero,
            packed,
            weight_scale_F,
            weight_zero_F,
            bias,
            1.0,
            0,
            result,
            *after,
        )
        return found if residual is None else found.add_(residual)

    return multiply


def _scale(low: float, high: float) -> tuple[float, int]:
    """Step and zero point of unsigned bytes over a range that has 0 in it."""
    step = max(high - low, TINY) / LEVELS
    return step, round(-low / step)


def _quantised(x: torch.Tensor, scale: float, zero: int) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # quantised tensors may go from torch one day
        quantised = torch.quantize_per_tensor(x, scale, zero, torch.quint8)
    # its bytes as they are: `int_repr` would copy them
    return torch.empty(0, dtype=torch.uint8).set_(quantised.untyped_storage(), 0, quantised.shape, quantised.stride())


def activation_ranges(backbone: Any, batches: Iterable[Mapping[str, torch.Tensor]]) -> torch.Tensor:
    """Least and largest activation of each channel at each of PLACES of each layer, padding aside, [N, P, 2, D]."""
    layers = backbone.encoder.layer
    shape = (len(layers), len(PLACES), backbone.config.hidden_size)
    low_NPD, high_NPD = torch.full(shape, torch.inf), torch.full(shape, -torch.inf)
    is_token_BL = torch.zeros(0)

    def watch(n: int, place: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def note(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            seen_TD = inputs[0].detach().float()[is_token_BL]
            low_NPD[n, place] = torch.minimum(low_NPD[n, place], seen_TD.amin(0))
            high_NPD[n, place] = torch.maximum(high_NPD[n, place], seen_TD.amax(0))

        return note

    hooks = [
        layer.get_submodule(name).register_forward_pre_hook(watch(n, place))
        for n, layer in enumerate(layers)
        for place, name in enumerate(PLACES)
    ]
    try:
        with torch.inference_mode():
            for batch in batches:
                is_token_BL = batch["attention_mask"].bool()
                backbone(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([low_NPD, high_NPD], dim=2)
