"""What a student learns besides the gold classes, one file an objective; every one of them is gone at inference.

An objective is a module that is called with the student, what it computed, its inputs and the targets of a batch, and
returns a loss for each pair, zero where the teacher said nothing about it.
"""

from torch import nn

from raylib.student.objectives.ced_kd import CedKd
from raylib.student.objectives.crsd import Crsd
from raylib.student.objectives.lrkd import Lrkd
from raylib.student.objectives.mkd import Mkd

__all__ = ["CedKd", "Crsd", "Lrkd", "Mkd", "build_objective"]


def build_objective(
    name: str,
    backbone: nn.Module,
    latent_size: int,
    embedding_size: int | None,
    reduction: str = "mean",
    num_latents: int = 1,
) -> nn.Module | None:
    """The module of an objective; None for `bert`, which learns the classes alone. ValueError on another name."""
    if name == "bert":
        return None
    if name == "lrkd":
        if embedding_size is None:
            raise ValueError("objective lrkd needs rationale embeddings")
        return Lrkd(latent_size, embedding_size, reduction, num_latents)
    if name == "ced_kd":
        return CedKd(backbone)
    if name == "mkd":
        return Mkd(backbone.config.hidden_size)  # type: ignore[union-attr, arg-type]
    if name == "crsd":
        return Crsd()
    raise ValueError(f"objective {name!r}: not one of bert, lrkd, ced_kd, mkd, crsd")
