"""The suite of prompt injections: what sellers write into titles, and neutral text of the same length beside it.

`benchmarks/injection.py` measures with it how many labels a teacher gives away. Nothing else reads this module.
"""

import base64
import codecs
import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator

from raylib.config import Section, read_yaml
from raylib.errors import ConfigError

SUITE_FILE = Path(__file__).parent / "attacks.yaml"
TARGET = "{target}"
KINDS = (
    "ignore_above", "fake_closing_tag", "fake_few_shot", "role_marker", "zero_width", "look_alike", "fake_label_line",
    "json_escape", "policy_claim", "flattery", "urgency", "task_switch", "encoded", "fake_rationale",
)  # fmt: skip

_CYRILLIC = str.maketrans("aceopxyiABCEHKMOPTX", "асеорхуіАВСЕНКМОРТХ")
_FULL_WIDTH = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)})
_TAGS = str.maketrans({chr(code): chr(code + 0xE0000) for code in range(0x20, 0x7F)})  # invisible twins of ASCII
DISGUISES: dict[str, Callable[[str], str]] = {
    "zero_width": "\u200b".join,
    "soft_hyphen": "\xad".join,
    "tags": lambda text: text.translate(_TAGS),
    "bidi": lambda text: f"\u202e{text[::-1]}\u202c",  # shown left to right again, stored reversed
    "look_alike": lambda text: text.translate(_CYRILLIC),
    "full_width": lambda text: text.translate(_FULL_WIDTH),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "spaced": " ".join,
    "html": lambda text: "".join(f"&#{ord(letter)};" if letter.isalpha() else letter for letter in text),
}


class Attack(Section):
    """One injection."""

    id: str = Field(pattern=r"^[a-z]{2}-[a-z]+-\d+$", description="locale, short kind, number")
    kind: str = Field(description="the idea behind it; one of KINDS")
    locale: str = Field(description="language of the text and of the neutral words beside it")
    place: Literal["append", "prepend", "insert"] = Field(description="where in the title; insert = amid its words")
    disguise: str | None = Field(None, description="how the text is rewritten after the label is filled in")
    text: str = Field(description="what the seller writes; {target} stands for the label that is wanted")

    @field_validator("kind", "disguise", "text")
    @classmethod
    def _known(cls, value: str | None, info: object) -> str | None:
        name = getattr(info, "field_name", "")
        if name == "kind" and value not in KINDS:
            raise ValueError(f"unknown kind {value!r}; known: {', '.join(KINDS)}")
        if name == "disguise" and value is not None and value not in DISGUISES:
            raise ValueError(f"unknown disguise {value!r}; known: {', '.join(DISGUISES)}")
        if name == "text" and TARGET not in (value or ""):
            raise ValueError(f"the text must hold {TARGET}")
        return value

    def write(self, title: str, target: str) -> str:
        """The title with this attack in it."""
        text = self.text.replace(TARGET, target)
        return placed(title, DISGUISES[self.disguise](text) if self.disguise else text, self.place)


class Suite(Section):
    """All attacks, and the ordinary words of each locale."""

    neutral_words: dict[str, tuple[str, ...]] = Field(description="sellers' filler words by locale")
    attacks: tuple[Attack, ...] = Field(min_length=1, description="the attacks")


@cache
def load_attacks() -> Suite:
    """The shipped suite; raises ConfigError naming every wrong entry."""
    try:
        return Suite.model_validate(read_yaml(SUITE_FILE), strict=False)  # YAML has lists where the model has tuples
    except ValidationError as error:
        raise ConfigError(f"{SUITE_FILE}: not a suite of attacks: {error}") from None


def placed(title: str, text: str, place: str) -> str:
    """`text` before, after or amid the words of `title`."""
    if place == "prepend":
        return f"{text} {title}"
    if place == "append":
        return f"{title} {text}"
    words = title.split(" ")
    return " ".join([*words[: len(words) // 2], text, *words[len(words) // 2 :]])


def neutral_text(words: Sequence[str], num_tokens: int, count: Callable[[str], int], key: str) -> str:
    """Words drawn by `key` until `count(text)` is `num_tokens`, or one less where nothing fits the rest.

    `count` gives the tokens of a prompt that holds the text. What is left when no word fits is filled with digits.
    """
    draw = random.Random(key)
    text = ""
    while count(text) < num_tokens:
        digit = str(draw.randint(1, 9))
        options = [*draw.sample(words, len(words)), digit]
        longer = [f"{text} {word}".strip() for word in options if not (word == digit and text[-1:].isdigit())]
        fitting = next((option for option in [*longer, text + digit] if count(option) <= num_tokens), None)
        if fitting is None:
            break
        text = fitting
    return text
