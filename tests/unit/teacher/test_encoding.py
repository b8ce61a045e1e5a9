import pytest
from transformers import AutoTokenizer

from raylib.errors import InputError
from raylib.prompts import encode_prompt
from raylib.teacher.encoding import IGNORED, dpo_example, load_tokenizer, sft_example

PROMPT = [{"role": "system", "content": "Judge."}, {"role": "user", "content": 'query: "red shoes"'}]
ANSWER = "asked red, found blue.\nLabel: Attribute Mismatch"


def test_loss_is_on_the_answer_and_its_end_alone(tokenizer):
    example = sft_example(tokenizer, PROMPT, ANSWER)
    counted = [token for token in example["labels"] if token != IGNORED]
    assert tokenizer.decode(counted) == ANSWER + "<|im_end|>"
    assert example["input_ids"][-len(counted) :] == counted
    assert example["labels"][: -len(counted)] == [IGNORED] * (len(example["input_ids"]) - len(counted))


def test_a_person_can_read_which_tokens_are_learnt(tokenizer):
    example = sft_example(tokenizer, PROMPT, "found blue.\nLabel: Brand Mismatch")
    shown = "".join(
        tokenizer.decode([token]) if label == IGNORED else f"[{tokenizer.decode([token])}]"
        for token, label in zip(example["input_ids"], example["labels"], strict=True)
    )
    assert shown.replace("][", "|") == (
        "<|im_start|>system\nJudge.<|im_end|>\n"
        '<|im_start|>user\nquery: "red shoes"<|im_end|>\n'
        "<|im_start|>assistant\n"
        "[f|o|und| blue|.|\n|Label|:| Brand| Mismatch|<|im_end|>]"
    )


def test_training_prompt_is_what_generation_starts_from(tokenizer):
    asked = tokenizer.apply_chat_template(PROMPT, tokenize=True, add_generation_prompt=True, return_dict=True)
    example = sft_example(tokenizer, PROMPT, ANSWER)
    assert example["input_ids"][: len(asked["input_ids"])] == asked["input_ids"]
    assert tokenizer.decode(encode_prompt(tokenizer, PROMPT)).endswith("<|im_start|>assistant\n")


def test_example_is_the_conversation_of_the_chat_template(tokenizer):
    whole = tokenizer.apply_chat_template([*PROMPT, {"role": "assistant", "content": ANSWER}], tokenize=False)
    assert tokenizer.decode(sft_example(tokenizer, PROMPT, ANSWER)["input_ids"]) == whole.rstrip("\n")


def test_both_sides_of_a_preference_answer_one_prompt(tokenizer):
    example = dpo_example(tokenizer, PROMPT, ANSWER, "no.\nLabel: Strongly Relevant")
    assert example["prompt_ids"] + example["chosen_ids"] == sft_example(tokenizer, PROMPT, ANSWER)["input_ids"]
    assert tokenizer.decode(example["rejected_ids"]) == "no.\nLabel: Strongly Relevant<|im_end|>"


def test_tokenizer_without_chat_template_is_refused(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    bare = AutoTokenizer.from_pretrained(tmp_path)
    bare.chat_template = None
    (tmp_path / "chat_template.jinja").unlink()
    bare.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no chat template"):
        load_tokenizer(str(tmp_path))


def test_directory_without_tokenizer_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(InputError, match=str(tmp_path)):
        load_tokenizer(str(tmp_path))
