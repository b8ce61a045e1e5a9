"""The student: a cross-encoder with a latent that is taught to hold the teacher's rationale, and kept at inference.

B batch, L tokens, D hidden size of the backbone, R width of the latent (of all, side by side), C classes.
Source: arXiv 2601.21611, section 5.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from pydantic import Field
from torch import nn
from transformers import AutoConfig, AutoModel

from raylib.config import Section
from raylib.labels import LabelSchema
from raylib.student.extractors import build_extractor
from raylib.student.judged import Targets


class StudentSpec(Section):
    """What defines a student besides its weights; stored in the artifact."""

    label_schema: LabelSchema = Field(description="classes, gains and tier thresholds")
    extractor: str = Field(description="none, mlp, poly or gat")
    width: int | None = Field(None, description="dimension of a latent; null = hidden size of the backbone")
    num_latents: int = Field(1, ge=1, description="latents, each with its own extractor; the paper has one")
    max_length: int = Field(128, ge=8, description="tokens a pair, special tokens included")
    item_fields: tuple[str, ...] = Field(
        ("title", "brand"), strict=False, description="columns that make the item text"
    )
    temperature: float = Field(1.0, gt=0.0, description="of the softmax over classes, fitted on dev")


class StudentOutput(NamedTuple):
    """What one forward pass gives."""

    logits_BC: torch.Tensor
    latent_BR: torch.Tensor
    hidden_BLD: torch.Tensor
    auxiliary_B: torch.Tensor | None  # the objective's loss of each pair; None without an objective or targets


class Student(nn.Module):
    """Backbone, extractor and one linear head over [h_cls ; r] (eq. 7).

    With extractor `none` the latent is h_cls itself and the head sees h_cls once: [h_cls ; h_cls] would be the same
    function class with twice the step size. `objective` is what else it learns; it exists in training only.
    """

    def __init__(self, backbone: nn.Module, spec: StudentSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = backbone
        if getattr(backbone, "pooler", None) is not None:
            backbone.pooler = None  # type: ignore[assignment]  # [CLS] is used as it is; unused weights would get no gradient
        size: int = backbone.config.hidden_size  # type: ignore[union-attr, assignment]
        self.extractor = build_extractor(spec.extractor, size, spec.width, spec.num_latents)
        self.latent_size = size if self.extractor is None else int(self.extractor.width)  # type: ignore[arg-type]
        fused_size = size if self.extractor is None else size + self.latent_size
        self.head = nn.Linear(fused_size, len(spec.label_schema.names))
        self.objective: nn.Module | None = None
        self.autocast_dtype: torch.dtype | None = None  # set to bfloat16 for mixed-precision training

    @classmethod
    def from_config(cls, backbone_config: Mapping[str, Any], spec: StudentSpec) -> Self:
        """A student with random weights, for loading an artifact into it."""
        values = {name: value for name, value in backbone_config.items() if name != "model_type"}
        config = AutoConfig.for_model(backbone_config["model_type"], **values)
        return cls(AutoModel.from_config(config, dtype=torch.float32), spec)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> "Student":
        """The student of an artifact, in evaluation mode, on the CPU in float32; see raylib.student.artifact."""
        from raylib.student.artifact import load_student

        return load_student(path)[0]

    def save_pretrained(self, path: str | Path, tokenizer: Any) -> None:
        """Write the artifact, whole or not at all: safetensors, JSON and the tokenizer's files."""
        from raylib.student.artifact import save_student

        save_student(self, tokenizer, path)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        targets: Targets | None = None,
    ) -> StudentOutput:
        """Logits and latent of tokenised pairs, with `targets` the objective's losses too.

        `token_type_ids` where the backbone has segments.
        """
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        with torch.autocast(input_ids.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None):
            encoded = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **segments)
        # The extractor and the head are cheap, and sums over tokens lose digits in bfloat16: float32 from here on.
        hidden_BLD = encoded.last_hidden_state.float()
        cls_BD = hidden_BLD[:, 0]
        if self.extractor is None:
            latent_BR, fused_BF = cls_BD, cls_BD
        else:
            latent_BR = self.extractor(hidden_BLD, attention_mask.bool())
            fused_BF = torch.cat([cls_BD, latent_BR], dim=1)
        output = StudentOutput(self.head(fused_BF), latent_BR, hidden_BLD, None)
        if self.objective is None or targets is None:
            return output
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **segments}
        return output._replace(auxiliary_B=self.objective(self, output, inputs, targets))
