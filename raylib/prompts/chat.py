"""Chat messages to the text that a model reads: one place, so that annotation and training render alike."""

from collections.abc import Sequence
from typing import Any

from raylib.prompts.quoting import break_special_tokens


def render(tokenizer: Any, messages: Sequence[dict[str, str]], is_prompt: bool) -> str:
    """Text of a conversation; `is_prompt` opens the assistant's turn at its end.

    User messages hold seller text: a special token of this tokenizer in them is broken up. `enable_thinking=False`
    makes Qwen3's template open with an empty think block: the rationale belongs into the answer, not into a hidden
    block. Templates that do not know the switch ignore it.
    """
    safe = [
        {**message, "content": break_special_tokens(tokenizer, message["content"])}
        if message["role"] == "user"
        else message
        for message in messages
    ]
    text: str = tokenizer.apply_chat_template(
        safe, tokenize=False, add_generation_prompt=is_prompt, enable_thinking=False
    )
    return text


def encode_prompt(tokenizer: Any, messages: Sequence[dict[str, str]]) -> list[int]:
    """Token ids of a prompt up to where the assistant begins to write; the template alone writes special tokens."""
    ids: list[int] = tokenizer.encode(render(tokenizer, messages, True), add_special_tokens=False)
    return ids
