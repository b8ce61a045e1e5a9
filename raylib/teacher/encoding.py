"""Conversations as token ids, with the loss on the answers only.

Both trainers get token ids from here, and prompts as annotation does from `raylib.prompts`, so that the teacher is
asked in use exactly what it was asked in training.
"""

from collections.abc import Sequence
from typing import Any

from raylib.errors import InputError
from raylib.prompts import encode_prompt

IGNORED = -100  # label of a token that does not count in the loss (torch's cross entropy)
Message = dict[str, str]


def load_tokenizer(path: str) -> Any:
    """The tokenizer of a model; InputError when it is missing or has no chat template or end-of-answer token."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise InputError(f"no model at {path}: its tokenizer cannot be loaded: {str(error).splitlines()[0]}") from None
    if not tokenizer.chat_template:
        raise InputError(
            f"{path}: the tokenizer has no chat template, so a conversation has no defined text; "
            "use an instruction-tuned model or add chat_template.jinja to the model's directory"
        )
    if tokenizer.eos_token_id is None:
        raise InputError(f"{path}: the tokenizer has no eos_token, so an answer would never end")
    return tokenizer


def encode_completion(tokenizer: Any, completion: str) -> list[int]:
    """Token ids of an answer and the token that ends it; the end is learned, else generation would run on.

    A rationale may quote a title that spells out a special token; it stays the spelling that the model wrote.
    """
    ids: list[int] = tokenizer(completion, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [*ids, tokenizer.eos_token_id]


def sft_example(tokenizer: Any, prompt: Sequence[Message], completion: str) -> dict[str, list[int]]:
    """`input_ids` and `labels` of equal length; the prompt's labels are IGNORED (arXiv 2601.21611 eq. 3)."""
    prompt_ids = encode_prompt(tokenizer, prompt)
    completion_ids = encode_completion(tokenizer, completion)
    return {"input_ids": prompt_ids + completion_ids, "labels": [IGNORED] * len(prompt_ids) + completion_ids}


def num_answer_tokens(example: dict[str, list[int]]) -> int:
    """Tokens of the answer in an `sft_example`, its end included."""
    return sum(label != IGNORED for label in example["labels"])


def dpo_example(tokenizer: Any, prompt: Sequence[Message], chosen: str, rejected: str) -> dict[str, list[int]]:
    """`prompt_ids`, `chosen_ids` and `rejected_ids`, as TRL's preference collator takes them."""
    return {
        "prompt_ids": encode_prompt(tokenizer, prompt),
        "chosen_ids": encode_completion(tokenizer, chosen),
        "rejected_ids": encode_completion(tokenizer, rejected),
    }
