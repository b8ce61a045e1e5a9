"""The consistency filter: what the teacher learns from in SFT. Source: arXiv 2601.21611, eq. (1) and (2)."""

from collections.abc import Sequence
from typing import Any

from raylib.prompts import format_answer

Row = dict[str, Any]


def consistent_answers(answers: Sequence[Row], gold: str) -> tuple[list[Row], list[tuple[Row, str]]]:
    """Split the answers of one pair into those kept and (answer, reason) of those not.

    Kept are answers whose label is the gold one (eq. 1), over all perspectives (eq. 2), in their order. Under the one
    unified prompt two equal texts are the same example whatever perspective or sample they came from: the first stays,
    the others are `duplicate` (the paper does not say; weighting a text by how often it was drawn would reward
    boilerplate). The other reasons are `wrong_label` and the parser's.
    """
    kept: list[Row] = []
    dropped: list[tuple[Row, str]] = []
    seen: set[str] = set()
    for answer in answers:
        reason = _reason(answer, gold)
        if reason is None and (text := answer["rationale"].strip()) in seen:
            reason = "duplicate"
        if reason:
            dropped.append((answer, reason))
        else:
            seen.add(text)
            kept.append(answer)
    return kept, dropped


def completion(answer: Row) -> str:
    """What the teacher is trained to write for a kept answer."""
    return format_answer(answer["rationale"].strip(), answer["label"])


def _reason(answer: Row, gold: str) -> str | None:
    if answer["label"] is None:
        return str(answer["error"])
    return None if answer["label"] == gold else "wrong_label"
