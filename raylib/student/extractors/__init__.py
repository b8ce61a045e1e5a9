"""Extractors R(H, M) -> r of arXiv 2601.21611, section 5: token states to one latent vector.

Each file holds one extractor in its cheap algebraic form, which is the printed formula with the sums reordered.
All of them take hidden_BLD (float) and mask_BL (bool, at least one valid token a row) and return latent_BR.
"""

from torch import nn

from raylib.student.extractors.gat import GatExtractor
from raylib.student.extractors.mlp import MlpExtractor
from raylib.student.extractors.poly import PolyExtractor

NAMES = ("none", "mlp", "poly", "gat")


def build_extractor(name: str, size: int, width: int | None) -> nn.Module | None:
    """The extractor called `name` for token states of `size`; None for `none`, where r = h_cls.

    `width` is the dimension of r (and of the MLP's hidden layer); None = `size`, the one that fits the published
    parameter counts (1.18 M, 0.03 M and 0.59 M at size 768). Poly's codes live in the space of the token states, so it
    has no other width. Raises ValueError on another name or a width that the extractor cannot have.
    """
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
