"""Fixtures that several integration tests share: a tiny language model and a small pairs table."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from annotation_runs import NUM_PAIRS, finish, settings, start
from filelock import FileLock

from raylib import tables

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Directory of a random Qwen3 (0.2 M parameters, context 2048) with a BPE tokenizer and a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    path = tmp_path_factory.mktemp("models") / "tiny-qwen3"
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    prompts = Path(tables.__file__).parent / "prompts" / "perspectives"
    bpe.train_from_iterator((file.read_text(encoding="utf-8") for file in sorted(prompts.glob("*.yaml"))), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=2048
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=(len(tokenizer) + 63) // 64 * 64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen3ForCausalLM(config).to(torch.float32).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session")
def write_pairs() -> Callable[..., str]:
    """A function that writes a small pairs table of the schema `marketplace6` and returns its path."""

    def write(path: Path, num_pairs: int, split: str = "train", **changes: Any) -> str:
        golds = ("Strongly Relevant", "Brand Mismatch", "Category Mismatch", "Attribute Mismatch")
        rows = []
        for i in range(num_pairs):
            row = {
                "pair_id": hashlib.blake2b(f"{split}{i}".encode(), digest_size=8).hexdigest(),
                "bucket": i % 4,
                "query": f"red trail running shoes size {36 + i // 4}",
                "item_id": f"item-{i}",
                "title": f"Norvik running shoes {('red', 'blue')[i % 2]} number {i}",
                "brand": "Norvik" if i % 3 else None,
                "category": "Shoes > Running Shoes",
                "attributes": None,
                "locale": ("en", "es", "ja")[i % 3],
                "impressions": 10 + i,
                "clicks": i % 5,
                "gold": golds[i % 4],
                "split": split,
            }
            rows.append({**row, **changes})
        tables.write_parquet(f"{path}/part-0.parquet", tables.PAIRS, [tables.rows_batch(rows, tables.PAIRS)])
        return str(path)

    return write


@pytest.fixture(scope="session")
def whole(write_pairs: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A pairs table and an annotation run on it that nobody disturbed; the processes that share the tests share it."""
    shared = tmp_path_factory.getbasetemp()
    folder = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "whole"
    folder.mkdir(exist_ok=True)
    pairs = str(folder / "pairs")
    with FileLock(folder / "lock"):
        if not (folder / "run" / "_SUCCESS").exists():
            write_pairs(folder / "pairs", NUM_PAIRS)
            one = settings(pairs, folder / "run")
            one["engine"] |= {"num_engines": 1}
            finish(start(one, folder / "config.yaml"))
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["rows_in"] == NUM_PAIRS * 2 * 2
    assert metrics["rows_out"] > NUM_PAIRS, "too few answers parse to compare anything"
    return pairs, folder / "run"
