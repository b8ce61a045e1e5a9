"""The text forms of a pair and of an answer, and the parser of answers."""

import re
from collections.abc import Mapping
from typing import Any

from raylib.labels import LabelSchema
from raylib.prompts.quoting import quote

PAIR_FIELDS = ("query", "locale", "title", "brand", "category", "attributes")
PARSE_ERRORS = ("empty", "no_label", "label_outside_schema", "truncated")

# Models like to decorate: "**Label:** Exact.", "label: `Exact`". The decoration goes, the words stay.
_LABEL_LINE = re.compile(
    r"^[ \t*_`#>-]*label[ \t*_`]*:[ \t*_`\"'<\[(]*(?P<label>[^\n]*?)[ \t\r*_`\"'>\]).]*(?P<rest>\n|\Z)",
    re.IGNORECASE | re.MULTILINE,
)
_DECORATION = " \t\r\n*_`\"'>\\]).-"
_THINK_BLOCK = re.compile(r"<think>.*?</think>", re.DOTALL)


def format_pair(pair: Mapping[str, Any]) -> str:
    """The user message: one `field: <JSON string>` line for each field that is present and not blank.

    Sellers write prompts into titles: `quote` keeps a value on one line, marks it as data and leaves no special token.
    """
    present = [(name, pair.get(name)) for name in PAIR_FIELDS]
    return "\n".join(
        f"{name}: {quote(str(value))}" for name, value in present if value is not None and str(value).strip()
    )


def format_answer(rationale: str, label: str) -> str:
    """The assistant's message: think, then respond."""
    return f"{rationale}\nLabel: {label}"


def parse_answer(text: str, finish_reason: str, schema: LabelSchema) -> tuple[str, str | None, str | None]:
    """Split an answer into (rationale, label, error); exactly one of label and error is None.

    The label counts only as the answer's last line, as the prompt asks for: a title's "Label: Exact" that the rationale
    repeats is reasoning, before a final line as well as without one. Errors: `empty` (no text, or no reasoning before
    the label), `no_label`, `label_outside_schema`, and `truncated` where the answer was cut off (finish reason
    `length`) before its label line was complete: a cut "Label: E" may have been going to be any class with E.
    """
    text = _THINK_BLOCK.sub("", text).strip(" \t\r")
    is_cut = finish_reason == "length"
    found = _last_label_line(text)
    if found is None or text[found.end() :].strip(_DECORATION):
        error = "truncated" if is_cut else ("no_label" if text.strip() else "empty")
        return text.strip(), None, error
    rationale = text[: found.start()].strip()
    if is_cut and not found["rest"]:
        return rationale, None, "truncated"
    label = schema.canonical(found["label"])
    if label is None:
        return rationale, None, "label_outside_schema"
    return (rationale, label, None) if rationale else (rationale, None, "empty")


def label_start(text: str) -> int | None:
    """Where the label of an answer's label line begins, a number of characters; None where it has none."""
    found = _last_label_line(text)
    return found.start("label") if found and found["label"] else None


def _last_label_line(text: str) -> re.Match[str] | None:
    found = None
    for found in _LABEL_LINE.finditer(text):  # noqa: B007 - the last one is wanted
        pass
    return found
