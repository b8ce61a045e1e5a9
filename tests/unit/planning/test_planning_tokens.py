from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raylib import tables
from raylib.errors import InputError
from raylib.labels import LabelSchema
from raylib.models import EMBEDDED_DIR
from raylib.planning.model_shape import model_folder
from raylib.planning.sample import sample_pairs
from raylib.planning.tokens import count_prompts, expected_answers, measured_answers, student_tokens
from raylib.prompts import encode_prompt, load_perspective
from raylib.teacher.encoding import encode_completion, load_tokenizer

SCHEMA = LabelSchema.load("marketplace6")
NAMES = ("user_intent", "business_rule")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(str(EMBEDDED_DIR))


def prompts(tokenizer: Any, pairs: list[dict[str, Any]]) -> list[list[int]]:
    perspectives = [load_perspective(name) for name in NAMES]
    return [encode_prompt(tokenizer, one.messages(SCHEMA, pair, 2)) for pair in pairs for one in perspectives]


def count(tokenizer: Any, pairs: list[dict[str, Any]], room: int = 10_000, block_size: int = 16) -> Any:
    perspectives = [load_perspective(name) for name in NAMES]
    return count_prompts(tokenizer, perspectives, SCHEMA, pairs, 2, 3, room, block_size)


def test_prompt_tokens_are_those_that_annotation_sends(tokenizer: Any, write_pairs: Callable[..., str]):
    pairs = sample_pairs(write_pairs(["train"] * 12), 12).rows
    lengths = [len(ids) for ids in prompts(tokenizer, pairs)]
    counts = count(tokenizer, pairs)
    assert (counts.prompts, counts.too_long, counts.longest) == (24, 0, max(lengths))
    assert counts.prompt_tokens == 3 * sum(lengths)
    middle = sorted(lengths)[11]
    shorter = count(tokenizer, pairs, room=middle)
    assert shorter.prompts == sum(length <= middle for length in lengths)
    assert shorter.too_long == 24 - shorter.prompts
    assert shorter.prompt_tokens == 3 * sum(length for length in lengths if length <= middle)


@pytest.mark.parametrize("block_size", [1, 16, 32])
def test_uncached_tokens_are_those_behind_the_longest_shared_blocks(
    tokenizer: Any, write_pairs: Callable[..., str], block_size: int
):
    pairs = sample_pairs(write_pairs(["train"] * 12), 12).rows
    expected, earlier = 0, []
    for ids in [ids for ids in prompts(tokenizer, pairs) for _ in range(3)]:
        shared = max((common(ids, other) for other in earlier), default=0)
        expected += len(ids) - min(shared, len(ids) - 1) // block_size * block_size
        earlier.append(ids)
    counts = count(tokenizer, pairs, block_size=block_size)
    assert counts.uncached_tokens == expected
    # The prefixes of 2 perspectives come first once in each of 3 locales; a second half of the pairs finds them cached.
    half = count(tokenizer, pairs[:6], block_size=block_size)
    assert counts.cold_tokens == half.cold_tokens > 0
    twice = 2 * (half.uncached_tokens - half.cold_tokens) + half.cold_tokens
    assert twice == pytest.approx(expected, rel=0.05)


def common(left: list[int], right: list[int]) -> int:
    pairs = zip(left, right, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def test_an_answer_is_as_long_as_the_examples_unless_the_user_knows_better(tokenizer: Any):
    perspective = load_perspective("unified")
    examples = [one for by_locale in perspective.few_shots["marketplace6"].values() for one in by_locale]
    texts = [f"{one.rationale.strip()}\nLabel: {one.label}" for one in examples]
    mean = sum(len(encode_completion(tokenizer, text)) for text in texts) / len(texts)
    found = expected_answers(tokenizer, perspective, SCHEMA, 256, None)
    assert found.tokens == mean
    assert found.row_bytes > max(map(len, texts)) / 2
    assert expected_answers(tokenizer, perspective, SCHEMA, 20, None).tokens == 20
    assert expected_answers(tokenizer, perspective, SCHEMA, 256, 99.5).tokens == 99.5
    assert expected_answers(tokenizer, perspective, SCHEMA, 64, 99.5).tokens == 64
    bare = perspective.model_copy(update={"few_shots": {}})
    without = expected_answers(tokenizer, bare, SCHEMA, 77, None)
    assert without.tokens == 77
    assert "no example for marketplace6" in without.source


def write_rationales(folder: Path, tokens: dict[str, list[int]]) -> str:
    rows = [
        {"pair_id": "p", "bucket": 0, "perspective": name, "sample": i, "rationale": "r", "label": None, "error": None}
        | {"finish_reason": "stop", "prompt_tokens": 5, "generated_tokens": size, "fingerprint": "f"}
        for name, sizes in tokens.items()
        for i, size in enumerate(sizes)
    ]
    batch = tables.rows_batch(rows, tables.RATIONALES)
    tables.write_parquet(f"{folder}/unit-00000.parquet", tables.RATIONALES, [batch])
    return str(folder)


def test_an_earlier_run_tells_the_length_of_answers(tmp_path: Path):
    uri = write_rationales(tmp_path / "run", {"unified": [10, 20, 33], "user_intent": [7]})
    found = measured_answers(uri)
    assert {name: answers.tokens for name, answers in found.items()} == {"unified": 21.0, "user_intent": 7.0}
    assert found["unified"].row_bytes == (tmp_path / "run" / "unit-00000.parquet").stat().st_size / 4
    (tmp_path / "run" / "config.yaml").write_text("job: annotate")
    with pytest.raises(InputError, match="unfinished"):
        measured_answers(uri)
    with pytest.raises(InputError, match="the rationales table is empty"):
        measured_answers(write_rationales(tmp_path / "empty", {}))


def test_student_tokens_are_those_of_its_tokenizer(write_pairs: Callable[..., str]):
    from transformers import AutoTokenizer

    folder = model_folder("minilm")
    pairs = sample_pairs(write_pairs(["train"] * 12), 12).rows
    items = [f"{pair['title']} | {pair['brand']}" if pair["brand"] else pair["title"] for pair in pairs]
    encoded = AutoTokenizer.from_pretrained(folder)([pair["query"] for pair in pairs], items)["input_ids"]
    lengths = [len(ids) for ids in encoded]
    assert student_tokens(folder, pairs, ("title", "brand"), 128) == lengths
    assert student_tokens(folder, pairs, ("title", "brand"), 14) == [min(14, length) for length in lengths]
