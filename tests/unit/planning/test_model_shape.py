import json
import struct
from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest

from raylib.errors import InputError
from raylib.models import EMBEDDED_DIR
from raylib.planning.model_shape import load_shape, model_folder


def stored_parameters(file: Path) -> int:
    with file.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(size))
    return sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def test_parameters_are_those_of_the_weights():
    shape = load_shape(str(EMBEDDED_DIR))
    assert shape.num_parameters == stored_parameters(EMBEDDED_DIR / "model.safetensors")
    assert shape.num_multiplied == shape.num_parameters  # the tied table is the output layer
    minilm = load_shape(model_folder("minilm"))
    assert minilm.num_parameters == 22_713_216  # as published for all-MiniLM-L6-v2
    assert minilm.kv_bytes(4) == 0


def test_qwen3_14b(write_model: Callable[..., str]):
    shape = load_shape(write_model())
    # tables 2 x 151936 x 5120; a layer: q and o 5120 x 5120, k and v 5120 x 1024, three times 5120 x 17408, norms
    layer = 2 * 5120 * 5120 + 2 * 5120 * 1024 + 3 * 5120 * 17408 + 2 * 5120 + 2 * 128
    assert shape.num_parameters == 2 * 151936 * 5120 + 40 * layer + 5120 == 14_768_307_200
    assert shape.num_multiplied == 14_768_307_200 - 151936 * 5120
    assert shape.kv_bytes(2) == 40 * 2 * 8 * 128 * 2 == 163_840
    assert shape.lora_parameters(16) == 40 * 16 * (10240 + 6144 + 6144 + 10240 + 3 * 22528) == 64_225_280


def test_variants_of_decoders(write_model: Callable[..., str]):
    qwen3 = load_shape(write_model("a"))
    llama = load_shape(write_model("b", model_type="llama"))
    assert qwen3.num_parameters - llama.num_parameters == 40 * 2 * 128  # norms of queries and keys
    qwen2 = load_shape(write_model("c", model_type="qwen2"))
    assert qwen2.num_parameters - llama.num_parameters == 40 * (5120 + 2 * 1024)  # biases of queries, keys and values
    tied = load_shape(write_model("d", tie_word_embeddings=True))
    assert qwen3.num_parameters - tied.num_parameters == 151936 * 5120
    assert tied.num_multiplied == qwen3.num_multiplied
    one_head = load_shape(write_model("e", head_dim=None, num_key_value_heads=None))
    assert one_head.kv_size == 2 * 5120


def test_what_cannot_be_sized_is_told(write_model: Callable[..., str], tmp_path: Path):
    with pytest.raises(InputError, match=r"model_type 'mamba' is not known to the plan; known: qwen2, .*bert"):
        load_shape(write_model("a", model_type="mamba"))
    folder = write_model("b")
    (Path(folder) / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_size": 3}))
    with pytest.raises(InputError, match="has no 'intermediate_size'"):
        load_shape(folder)
    with pytest.raises(InputError, match="hf download some-owner/never-published --exclude"):
        model_folder("some-owner/never-published")
    with pytest.raises(InputError, match="no model at"):
        model_folder(str(tmp_path / "nowhere"))
