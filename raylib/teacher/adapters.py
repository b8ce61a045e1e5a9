"""LoRA adapters: their settings, and on which base they stand."""

import json
from pathlib import Path
from typing import Any

from pydantic import Field

from raylib.config import Section
from raylib.errors import InputError
from raylib.models import model_fingerprint

BASE_FILE = "base_model.json"


class Lora(Section):
    """Low-rank adapters on all linear layers. Unpublished in arXiv 2601.21611; ours: rank 16, alpha 32."""

    r: int = Field(16, ge=1, description="rank of the update of each weight")
    lora_alpha: int = Field(32, ge=1, description="scale of the update, times 1/rank")
    lora_dropout: float = Field(0.0, ge=0.0, lt=1.0, description="dropout before the adapter; 0 keeps runs comparable")


def write_base(adapter: Path, model: str) -> None:
    """Record in an adapter's directory which base model it was trained on."""
    record = {"model": model, "fingerprint": model_fingerprint(model)}
    (adapter / BASE_FILE).write_text(json.dumps(record, indent=2) + "\n")


def check_adapter(adapter: Path, model: str) -> None:
    """Raise InputError when `adapter` is no adapter directory, or was trained on other weights than `model`.

    The weights decide, not the path: a base may be copied to another place.
    """
    if not (adapter / "adapter_config.json").exists():
        raise InputError(f"{adapter}: holds no adapter_config.json; name the run directory of jobs.sft")
    if not (adapter / BASE_FILE).exists():
        return
    base = json.loads((adapter / BASE_FILE).read_text())
    if base["fingerprint"] != model_fingerprint(model):
        raise InputError(
            f"{adapter}: was trained on base model {base['model']}, not on {model}: an adapter fits its own base only; "
            f"set model to {base['model']}"
        )


def lora_of(adapter: Path) -> dict[str, Any]:
    """The settings of `Lora` that an adapter was trained with."""
    stored = json.loads((adapter / "adapter_config.json").read_text())
    return {name: stored[name] for name in Lora.model_fields}
