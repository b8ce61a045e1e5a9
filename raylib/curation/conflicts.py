"""Conflict mining: pairs of a right and a wrong rationale for DPO. Source: arXiv 2601.21611, section 3 and eq. (4)."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one pair under one perspective: a preference, or the reason why there is none."""

    perspective: str
    reason: str | None = None
    chosen: Row | None = None
    rejected: Row | None = None


def mine_conflicts(answers: Sequence[Row], gold: str, seed: int, allow_same_perspective: bool) -> list[Outcome]:
    """One outcome for each perspective that occurs among the answers of one pair, by name.

    A perspective fails when its prediction is wrong; its prediction is the label that most of its samples give, and on
    a tie the one that was given first. (Eq. 4 speaks of a single prediction; the vote is its steadiest estimate from
    samples.) Each failing perspective gives one preference, so a pair that two perspectives get wrong gives two, with
    two different mistakes; the paper does not give the number. Rejected is an answer with the wrongly predicted label.
    Chosen is a right answer of another perspective; perspective, then answer, are drawn by the seed, so that no
    perspective is favoured by its name.

    Reasons: `no_answer` (no sample was parsed), `no_conflict` (this perspective is right), `no_right_rationale`
    (nothing right in any try of any perspective), `only_same_perspective` (right answers in the failing perspective
    alone; with `allow_same_perspective` one of those is chosen instead).
    """
    by_perspective: dict[str, list[Row]] = {}
    for answer in answers:
        by_perspective.setdefault(answer["perspective"], []).append(answer)
    right = {name: [row for row in rows if row["label"] == gold] for name, rows in by_perspective.items()}
    return [
        _outcome(name, by_perspective[name], right, gold, seed, allow_same_perspective)
        for name in sorted(by_perspective)
    ]


def predicted_label(answers: Sequence[Row]) -> str | None:
    """The label that most answers give, on a tie the one of the lowest sample; None when none was parsed."""
    labels = [row["label"] for row in sorted(answers, key=lambda row: row["sample"]) if row["label"] is not None]
    votes = Counter(labels)  # counts in order of first occurrence, and max takes the first of equals
    return max(votes, key=lambda label: votes[label]) if votes else None


def _outcome(
    perspective: str,
    answers: list[Row],
    right: dict[str, list[Row]],
    gold: str,
    seed: int,
    allow_same_perspective: bool,
) -> Outcome:
    prediction = predicted_label(answers)
    if prediction is None:
        return Outcome(perspective, "no_answer")
    if prediction == gold:
        return Outcome(perspective, "no_conflict")
    if not any(right.values()):
        return Outcome(perspective, "no_right_rationale")
    others = [name for name in sorted(right) if name != perspective and right[name]]
    if not others and not allow_same_perspective:
        return Outcome(perspective, "only_same_perspective")
    wrong = [row for row in answers if row["label"] == prediction]
    key = [answers[0]["pair_id"], perspective, seed]
    source = _draw(others, [*key, "perspective"]) if others else perspective
    return Outcome(
        perspective, chosen=_draw(right[source], [*key, "chosen"]), rejected=_draw(wrong, [*key, "rejected"])
    )


def _draw(options: Sequence[Any], key: list[Any]) -> Any:
    """One of the options, the same for the same key wherever and in whatever order it is asked."""
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=8).digest()
    return options[int.from_bytes(digest) % len(options)]
