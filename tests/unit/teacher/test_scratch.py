import pytest

from raylib.config import JobConfig
from raylib.errors import ConfigError
from raylib.teacher.scratch import Scratch, train_tokenizer


def test_same_texts_give_the_same_tokenizer(tmp_path):
    texts = ["red shoes 42", "靴 赤 42", "zapatos rojos 42"] * 5
    for name in ("a", "b"):
        train_tokenizer(texts, 320, 128, tmp_path / name)
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (tmp_path / "b" / "tokenizer.json").read_bytes()


def test_any_text_survives_encoding(tokenizer):
    text = "Schuhe größe 42½ 靴 👟\n\tℵ"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_digits_are_single_tokens(tokenizer):
    assert len(tokenizer("1234567")["input_ids"]) == 7


def test_heads_that_do_not_divide_are_refused():
    class Job(JobConfig):
        scratch: Scratch

    with pytest.raises(ConfigError, match="num_key_value_heads 3 does not divide num_heads 4"):
        Job.from_mapping({"scratch": {"num_heads": 4, "num_key_value_heads": 3}}, "test")
