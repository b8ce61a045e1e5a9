"""What a model costs, from its config.json alone: parameters, bytes of a token's keys and values."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylib.errors import InputError
from raylib.models import resolve_model

DECODERS = ("qwen2", "qwen3", "llama", "mistral")  # grouped-query attention, gated feed-forward, RMS norms
ENCODERS = ("bert", "roberta", "xlm-roberta")


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model. Parameters are counted exactly; tests compare them with the weights of real models."""

    num_parameters: int
    num_embedding_parameters: int  # tables that are looked up, not multiplied: no arithmetic
    num_layers: int
    hidden_size: int
    vocab_size: int
    kv_size: int  # numbers that one token keeps in a layer for later ones: keys and values; 0 in encoders
    linear_shapes: tuple[tuple[int, int], ...]  # (in, out) of a layer's linear maps, which LoRA adapts
    max_positions: int

    @property
    def num_multiplied(self) -> int:
        """N of the FLOP formulas: a forward pass takes 2 N FLOPs a token (arXiv 2001.08361, section 2.1)."""
        return self.num_parameters - self.num_embedding_parameters

    def kv_bytes(self, number_bytes: int) -> int:
        """Bytes of KV cache one token takes."""
        return self.num_layers * self.kv_size * number_bytes

    def lora_parameters(self, rank: int) -> int:
        """Parameters of an adapter of this rank on all linear maps of all layers (not on the output layer)."""
        return self.num_layers * sum(rank * (inputs + outputs) for inputs, outputs in self.linear_shapes)


def model_folder(name_or_path: str) -> str:
    """Directory of a model on this machine; a Hugging Face id means its place in the cache.

    Raises InputError for an id that is not cached: a plan downloads nothing.
    """
    model = resolve_model(name_or_path)
    if Path(model).is_dir():
        return model
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(model, "config.json")
    if not isinstance(found, str):
        raise InputError(
            f"{model}: a plan needs the model's configuration and tokenizer (not its weights), which are not on this "
            f'machine; fetch them with: hf download {model} --exclude "*.safetensors" --exclude "*.bin"'
        )
    return str(Path(found).parent)


def load_shape(folder: str) -> ModelShape:
    """The shape of the model in a directory; InputError for a kind of model whose formula is not known here."""
    file = Path(folder) / "config.json"
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    kind = config.get("model_type")
    try:
        if kind in DECODERS:
            return _decoder(config)
        if kind in ENCODERS:
            return _encoder(config)
    except KeyError as error:
        raise InputError(f"{file}: has no {error}, from which the model's size follows") from None
    raise InputError(
        f"{file}: model_type {kind!r} is not known to the plan; known: {', '.join((*DECODERS, *ENCODERS))}; for others "
        "plan with a model of the same size"
    )


def _decoder(config: dict[str, Any]) -> ModelShape:
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, layers = config["num_attention_heads"], config["num_hidden_layers"]
    kv_heads = config.get("num_key_value_heads") or heads
    head = config.get("head_dim") or hidden // heads
    linear = (
        (hidden, heads * head),
        (hidden, kv_heads * head),
        (hidden, kv_heads * head),
        (heads * head, hidden),
        (hidden, inner),
        (hidden, inner),
        (inner, hidden),
    )
    has_bias = config.get("attention_bias", False) or config["model_type"] == "qwen2"
    biases = sum(outputs for _, outputs in linear[:3]) if has_bias else 0
    if has_bias and config["model_type"] != "qwen2":
        biases += hidden  # of the output projection
    norms = 2 * hidden + (2 * head if config["model_type"] == "qwen3" else 0)
    layer = sum(inputs * outputs for inputs, outputs in linear) + biases + norms
    tables = vocab * hidden
    is_tied = config.get("tie_word_embeddings", False)
    return ModelShape(
        num_parameters=layers * layer + hidden + tables * (1 if is_tied else 2),
        num_embedding_parameters=0 if is_tied else tables,  # a tied table is multiplied as the output layer
        num_layers=layers,
        hidden_size=hidden,
        vocab_size=vocab,
        kv_size=2 * kv_heads * head,
        linear_shapes=linear,
        max_positions=config["max_position_embeddings"],
    )


def _encoder(config: dict[str, Any]) -> ModelShape:
    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    linear = ((hidden, hidden),) * 4 + ((hidden, inner), (inner, hidden))
    layer = sum(inputs * outputs + outputs for inputs, outputs in linear) + 4 * hidden  # biases, two layer norms
    rows = config["vocab_size"] + config["max_position_embeddings"] + config.get("type_vocab_size", 2)
    pooler = hidden * hidden + hidden
    return ModelShape(
        num_parameters=rows * hidden + 2 * hidden + layers * layer + pooler,
        num_embedding_parameters=rows * hidden,
        num_layers=layers,
        hidden_size=hidden,
        vocab_size=config["vocab_size"],
        kv_size=0,
        linear_shapes=linear,
        max_positions=config["max_position_embeddings"],
    )
