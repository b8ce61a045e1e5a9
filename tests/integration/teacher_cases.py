"""What the tests of dapt, sft and dpo share: a tiny base model, small tables, golden losses."""

import json
import os
from pathlib import Path
from typing import Any

from raylib import tables
from raylib.labels import LabelSchema
from raylib.teacher.encoding import load_tokenizer
from raylib.teacher.scratch import Scratch, new_model, train_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden"
LABELS = LabelSchema.load("marketplace6").names
SIZE = Scratch(vocab_size=400, hidden_size=32, intermediate_size=64, num_layers=2, num_heads=2, num_key_value_heads=1)


def answer(i: int, is_right: bool) -> str:
    color = ("red", "blue", "green")[i % 3]
    label = LABELS[(i % 3) if is_right else (i % 3) + 3]
    return f"asked {color}, found {color if is_right else 'nothing'}.\nLabel: {label}"


def prompt(i: int) -> list[dict[str, str]]:
    color = ("red", "blue", "green")[i % 3]
    return [
        {"role": "system", "content": "Judge the item."},
        {"role": "user", "content": f'query: "{color} shoes {i}"\ntitle: "{color} boots"'},
    ]


def make_base(path: Path) -> str:
    """A random Qwen3 in float32; its tokenizer depends on this file alone, so that golden losses stay."""
    texts = [prompt(i)[1]["content"] + answer(i, is_right) for i in range(60) for is_right in (True, False)]
    train_tokenizer(texts, SIZE.vocab_size, 512, path)
    new_model(SIZE, load_tokenizer(str(path)), 512, seed=0).save_pretrained(path)
    return str(path)


def write_sft(path: Path, num_rows: int) -> str:
    rows = [
        {"pair_id": f"{i:016x}", "perspective": "user_intent", "prompt": prompt(i), "completion": answer(i, True)}
        for i in range(num_rows)
    ]
    tables.write_parquet(f"{path}/part.parquet", tables.SFT, [tables.rows_batch(rows, tables.SFT)])
    return str(path)


def write_preferences(path: Path, num_rows: int) -> str:
    rows = [
        {
            "pair_id": f"{i:016x}",
            "prompt": prompt(i),
            "chosen": answer(i, True),
            "rejected": answer(i, False),
            "chosen_perspective": "user_intent",
            "rejected_perspective": "business_rule",
        }
        for i in range(num_rows)
    ]
    tables.write_parquet(f"{path}/part.parquet", tables.PREFERENCES, [tables.rows_batch(rows, tables.PREFERENCES)])
    return str(path)


def losses(metrics: dict[str, Any]) -> list[float]:
    """Loss of each step; runs here are shorter than the curve has points."""
    return [loss for _, loss in metrics["loss_curve"]]


def golden(name: str, found: list[float]) -> list[float]:
    """The recorded trajectory; TRICOT_WRITE_GOLDEN=1 records the found one instead."""
    path = GOLDEN / f"teacher_{name}.json"
    if os.environ.get("TRICOT_WRITE_GOLDEN"):
        path.write_text(json.dumps(found) + "\n")
    return json.loads(path.read_text())
