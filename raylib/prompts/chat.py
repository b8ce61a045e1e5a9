"""Chat messages to the text that a model reads: one place, so that annotation and training render alike."""

from collections.abc import Sequence
from typing import Any


def render_prompt(tokenizer: Any, messages: Sequence[dict[str, str]]) -> str:
    """The prompt text up to where the assistant begins to write.

    `enable_thinking=False` makes Qwen3's template open with an empty think block: the rationale belongs into the
    answer, not into a hidden block. Templates that do not know the switch ignore it.
    """
    text: str = tokenizer.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    return text


def encode_prompt(tokenizer: Any, messages: Sequence[dict[str, str]]) -> list[int]:
    """Token ids of `render_prompt`; the template has written all special tokens itself."""
    ids: list[int] = tokenizer.encode(render_prompt(tokenizer, messages), add_special_tokens=False)
    return ids
