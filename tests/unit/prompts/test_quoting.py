import json
import sys
import unicodedata
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylib.labels import LabelSchema
from raylib.models import resolve_model
from raylib.prompts import encode_prompt, format_pair, load_perspective
from raylib.prompts.quoting import break_special_tokens, quote
from raylib.teacher.encoding import load_tokenizer, sft_example

MARKERS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "[INST]", "</s>", "＜|im_end|＞", '"', "\\", "\n")
SELLER_TEXT = st.lists(st.one_of(st.text(max_size=8), st.sampled_from(MARKERS))).map("".join)


@cache
def embedded() -> Any:
    return load_tokenizer(resolve_model("embedded"))


@cache
def other_tokenizer(special: tuple[str, ...]) -> Any:
    """A byte-level tokenizer whose special tokens are `special`, with no chat template of its own."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    plain = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=plain, additional_special_tokens=list(special))


def special_ids(tokenizer: Any, ids: list[int]) -> list[int]:
    known = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    return [id for id in ids if id in known]


@given(st.text(alphabet=st.characters()))
def test_quoting_loses_nothing(text: str) -> None:
    assert json.loads(quote(text)) == text


def test_ordinary_titles_stay_as_they_are() -> None:
    titles = [
        "Zelt 2 kg – rot",
        "テント 赤 2kg",
        "차 [2 pack] ♥️ 100%",
        "می\u200cخواهم",
        "👩\u200d👧 T-shirt, 5 > 3",
        "l'été (neuf)",
    ]
    assert [quote(title) for title in titles] == [f'"{title}"' for title in titles]


def test_no_hidden_character_of_unicode_is_left() -> None:
    kinds = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    hidden = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in kinds]
    assert [letter for letter in hidden if letter in quote(f"a{letter}b")] == []
    assert quote("a\u200db\u200b") == '"a\\u200db\\u200b"'
    assert quote("\U000e0041") == '"\\udb40\\udc41"'


@given(SELLER_TEXT, SELLER_TEXT)
def test_seller_text_makes_no_new_line_and_no_special_token(title: str, brand: str) -> None:
    pair = {"query": "q", "locale": "en", "title": f"x{title}", "brand": f"x{brand}"}
    text = format_pair(pair)
    assert [line.partition(":")[0] for line in text.splitlines()] == ["query", "locale", "title", "brand"]
    assert [json.loads(line.partition(":")[2]) for line in text.splitlines()] == list(pair.values())
    assert special_ids(embedded(), embedded().encode(text, add_special_tokens=False)) == []


@settings(max_examples=50)
@given(SELLER_TEXT)
def test_the_templates_special_tokens_are_the_only_ones_of_a_prompt(title: str) -> None:
    schema, perspective, tokenizer = LabelSchema.load("marketplace6"), load_perspective("unified"), embedded()
    plain = perspective.messages(schema, {"query": "q", "locale": "en", "title": "x"}, 1)
    attacked = perspective.messages(schema, {"query": "q", "locale": "en", "title": f"x{title}"}, 1)
    expected = special_ids(tokenizer, encode_prompt(tokenizer, plain))
    assert special_ids(tokenizer, encode_prompt(tokenizer, attacked)) == expected
    example = sft_example(tokenizer, attacked, "it fits.\nLabel: Exact")
    assert special_ids(tokenizer, example["input_ids"]) == [*expected, tokenizer.eos_token_id]


@pytest.mark.parametrize(
    "special",
    [
        ("[INST]", "[/INST]", "</s>"),
        ("<｜User｜>", "<｜Assistant｜>"),
        ("[gMASK]", "<sop>"),
        ("|a|", "<|a|>"),
        ("¤user¤",),
    ],
)
def test_special_tokens_of_other_tokenizers_are_broken(special: tuple[str, ...]) -> None:
    tokenizer = other_tokenizer(special)
    title = "tent " + " x".join(special) + "".join(special)
    assert special_ids(tokenizer, tokenizer.encode(title, add_special_tokens=False))
    quoted = break_special_tokens(tokenizer, quote(title))
    assert special_ids(tokenizer, tokenizer.encode(quoted, add_special_tokens=False)) == []
    assert json.loads(quoted) == title


def test_a_rationale_that_spells_out_a_special_token_ends_once() -> None:
    tokenizer = embedded()
    prompt = [{"role": "user", "content": 'title: "x"'}]
    ids = sft_example(tokenizer, prompt, "the title says <|im_end|> here.\nLabel: Exact")["input_ids"]
    answer = ids[len(encode_prompt(tokenizer, prompt)) :]
    assert special_ids(tokenizer, answer) == [tokenizer.eos_token_id]
    assert tokenizer.decode(answer) == "the title says <|im_end|> here.\nLabel: Exact<|im_end|>"
