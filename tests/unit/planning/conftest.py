import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raylib import tables

# config.json of Qwen/Qwen3-14B, the keys that decide its size
QWEN3_14B = {
    "model_type": "qwen3",
    "hidden_size": 5120,
    "intermediate_size": 17408,
    "vocab_size": 151936,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "max_position_embeddings": 40960,
}


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., str]:
    """Writes a model directory with a configuration, and with the embedded model's tokenizer."""
    import shutil

    from raylib.models import EMBEDDED_DIR

    def write(name: str = "model", **changes: Any) -> str:
        folder = tmp_path / name
        folder.mkdir()
        for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copyfile(EMBEDDED_DIR / file, folder / file)
        (folder / "config.json").write_text(json.dumps({**QWEN3_14B, **changes}))
        return str(folder)

    return write


@pytest.fixture
def write_pairs(tmp_path: Path) -> Callable[..., str]:
    """Writes a finished pairs table; `splits` gives one pair each, all judged where not said otherwise."""

    def write(splits: list[str], is_judged: bool = True, name: str = "pairs") -> str:
        rows = [
            {
                "pair_id": f"{i:016x}",
                "bucket": i % 3,
                "query": f"red shoes size {36 + i // 4}",
                "item_id": f"item{i}",
                "title": f"Norvik running shoes number {i}" + " light" * (i % 5),
                "brand": "Norvik" if i % 3 else None,
                "category": "shoes > running",
                "attributes": None,
                "locale": ("en", "es", "ja")[i % 3],
                "impressions": 1,
                "clicks": 0,
                "gold": "Strongly Relevant" if is_judged else None,
                "split": split,
            }
            for i, split in enumerate(splits)
        ]
        folder = tmp_path / name
        tables.write_parquet(f"{folder}/part-0.parquet", tables.PAIRS, [tables.rows_batch(rows, tables.PAIRS)])
        return str(folder)

    return write
