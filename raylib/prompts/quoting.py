"""Seller text as quoted data: on one line, without hidden characters and without a model's special tokens.

All of it is done with JSON escapes: `json.loads` gives back the text that came in, and ordinary text stays as it is.
"""

import json
import re
from functools import lru_cache
from typing import Any

# What a reader of the title does not see, or sees as a new line: control and format characters (bidi marks, tags,
# zero-width spaces), line and paragraph separators, fillers, variation selectors beyond emoji, lone surrogates.
_HIDDEN = (
    "\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# `<` opens nearly every special token; its two wide forms become `<` where a tokenizer normalises. Rare in titles.
_OPENING = "<\uff1c\ufe64"
# The bracketed special tokens of Mistral, Llama 2, BERT, GLM and Kimi. Other brackets are ordinary: "[2 pack]".
_BRACKETED = (
    r"\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_[A-Z]+|ARGS|CALL_ID|THINK|IMG[A-Z_]*|CLS|SEP|MASK|gMASK|sMASK"
    r"|PAD|UNK|BOS|EOS|EOT)\])"
)
# A single joiner between two letters or emoji outside ASCII is spelling (Persian, Sinhala, emoji families) and stays.
_JOINER = rf"(?<=[^\x00-\x7f{_HIDDEN}])[\u200c\u200d](?=[^\x00-\x7f{_HIDDEN}])"
_ESCAPED = re.compile(rf"(?P<joiner>{_JOINER})|[{_HIDDEN}{_OPENING}]|{_BRACKETED}")


def quote(text: str) -> str:
    """A JSON string in one line whose hidden characters and openings of special tokens are visible escapes.

    `<` becomes `\\u003c`, a zero-width space `\\u200b`: a model sees that something stands there, and it is counted as
    tokens. Hidden characters are not stripped: the table and the prompt would then disagree on the title.
    """
    return _ESCAPED.sub(
        lambda found: found[0] if found["joiner"] else _escape(found[0]), json.dumps(text, ensure_ascii=False)
    )


def break_special_tokens(tokenizer: Any, quoted: str) -> str:
    """Quoted text in which no special token of this tokenizer is left: its characters are written as JSON escapes.

    `quote` knows the openings in use; this knows the model, and covers whatever its tokenizer calls special. Tokens
    that hold `"` or `\\` are left alone, as they cannot be told from the quoting; no known tokenizer has one.
    """
    pattern = _special_tokens(tokenizer)
    return pattern.sub(lambda found: _escape(found[0]), quoted) if pattern else quoted


def _escape(text: str) -> str:
    units = text.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


@lru_cache(maxsize=8)  # reading the tokens out of a tokenizer takes longer than encoding a prompt
def _special_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    texts = {str(text) for text in getattr(tokenizer, "all_special_tokens", ())}
    texts |= {token.content for token in added if token.special}
    usable = sorted((text for text in texts if text.strip() and not set(text) & set('"\\')), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, usable))) if usable else None
