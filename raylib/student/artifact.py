"""The student on disk: `student.json` (what it is), `model.safetensors` (weights), the tokenizer's files. No pickle.

`int8.safetensors`, where it is, holds the activation ranges with which the student is scored in int8; `README.md` is
the card with what was measured.

The training objective's own weights (projection, decoder, CRF) are left out: they serve training only.
"""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoTokenizer

from raylib.errors import InputError
from raylib.folders import whole_folder
from raylib.student.model import Student, StudentSpec

FORMAT_VERSION = 2  # 2: with a temperature
INT8, RECORD, CARD = "int8.safetensors", "student.json", "README.md"


def save_student(student: Student, tokenizer: Any, path: str | Path) -> None:
    """Write the artifact; the directory appears under its name only when it is complete, replacing an older one."""
    state = student.state_dict()
    weights = {
        name: value.detach().float().cpu().contiguous() for name, value in state.items() if not _is_training_only(name)
    }
    with whole_folder(Path(path)) as partial:
        tokenizer.save_pretrained(partial)
        save_file(weights, partial / "model.safetensors")
        (partial / RECORD).write_text(_record(student))


def complete(student: Student, path: str | Path, ranges: torch.Tensor | None) -> None:
    """Add to an artifact what was found out about `student`, whose weights it holds: spec, activation ranges."""
    folder = Path(path)
    if ranges is not None:
        save_file({"activation_ranges": ranges.contiguous()}, folder / f"_partial-{INT8}")
        (folder / f"_partial-{INT8}").rename(folder / INT8)
    add_text(folder, RECORD, _record(student))


def add_text(path: str | Path, name: str, text: str) -> None:
    """Write or replace one text file of an artifact, whole."""
    partial = Path(path) / f"_partial-{name}"
    partial.write_text(text)
    partial.rename(Path(path) / name)


def _record(student: Student) -> str:
    record = {
        "format_version": FORMAT_VERSION,
        **student.spec.model_dump(mode="json"),
        "backbone": student.backbone.config.to_dict(),  # type: ignore[union-attr, operator]
    }
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def is_student(path: str | Path) -> bool:
    """Whether a student's artifact is at `path`."""
    return (Path(path) / RECORD).is_file()


def load_backbone(path: str | Path) -> Any:
    """The pre-trained encoder at `path`, or that of a student's artifact there; in float32."""
    if is_student(path):
        return load_student(path)[0].backbone
    return AutoModel.from_pretrained(path, dtype=torch.float32)


def backbone_config(path: str | Path) -> Any:
    """Configuration of the encoder at `path`, or of that of a student's artifact there."""
    if is_student(path):
        return load_student(path)[0].backbone.config
    return AutoConfig.from_pretrained(path)


def load_ranges(path: str | Path) -> torch.Tensor:
    """The activation ranges of an artifact; raises InputError when it has none."""
    file = Path(path) / INT8
    try:
        return load_file(file)["activation_ranges"]
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(
            f"{file}: no activation ranges for int8 ({error}); a BERT student distilled on CPU workers has them; "
            "distil again or use float32 or bfloat16"
        ) from None


def load_student(path: str | Path) -> tuple[Student, Any]:
    """Student in evaluation mode, on the CPU in float32, and its tokenizer.

    Raises InputError naming the path when the artifact is missing, damaged, of a newer format, or lacks tensors.
    """
    folder = Path(path)
    try:
        record = json.loads((folder / RECORD).read_text())
    except OSError:
        raise InputError(
            f"{folder}: no student here (no student.json); name the `model` folder of a distill run"
        ) from None
    except ValueError as error:
        raise InputError(f"{folder}/student.json: damaged ({error}); distil again or restore it") from None
    version = record.pop("format_version", None)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise InputError(
            f"{folder}: artifact format {version}, this version reads up to {FORMAT_VERSION}; update tricot"
        )
    try:
        backbone_config = record.pop("backbone")
        spec = StudentSpec.model_validate(record)
    except (KeyError, ValidationError) as error:
        raise InputError(f"{folder}/student.json: not a student of format {version}: {error}") from None
    student = Student.from_config(backbone_config, spec)
    try:
        weights = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder}/model.safetensors: not readable ({error}); distil again or restore it") from None
    expected = {name: tuple(value.shape) for name, value in student.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    problems = [f"missing {name}" for name in sorted(expected.keys() - found.keys())]
    problems += [f"unknown {name}" for name in sorted(found.keys() - expected.keys())]
    problems += [
        f"{name} is {found[name]}, not {expected[name]}"
        for name in sorted(expected.keys() & found.keys())
        if found[name] != expected[name]
    ]
    if problems:
        raise InputError(f"{folder}/model.safetensors: {len(problems)} wrong tensor(s): {', '.join(problems[:10])}")
    student.load_state_dict(weights)
    return student.eval(), AutoTokenizer.from_pretrained(folder)


def _is_training_only(name: str) -> bool:
    return name.startswith("objective.")
