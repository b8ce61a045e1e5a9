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
    """What became of one pair under one perspective: a preference, or the reason why there is none.

    `chosen` and `rejected` are places among the answers.
    """

    perspective: str
    reason: str | None = None
    chosen: int | None = None
    rejected: int | None = None


def mine_conflicts(
    answers: Sequence[Row], gold: str, seed: int, allow_same_perspective: bool, may_be_chosen: Sequence[bool]
) -> list[Outcome]:
    """One outcome for each perspective that occurs among the answers of one pair, by name.

    A perspective fails when its prediction is wrong; its prediction is the label that most of its samples give, and on
    a tie the one that was given first. (Eq. 4 speaks of a single prediction; the vote is its steadiest estimate from
    samples.) Each failing perspective gives one preference, so a pair that two perspectives get wrong gives two, with
    two different mistakes; the paper does not give the number. Rejected is an answer with the wrongly predicted label.
    Chosen is a right answer of another perspective among those that `may_be_chosen`; perspective, then answer, are
    drawn by the seed, so that no perspective is favoured by its name.

    Reasons: `no_answer` (no sample was parsed), `no_conflict` (this perspective is right), `no_right_rationale`
    (nothing right in any try of any perspective), `unsupported` (right ones, but none that may be chosen),
    `only_same_perspective` (right answers in the failing perspective alone; with `allow_same_perspective` one of those
    is chosen instead).
    """
    places: dict[str, list[int]] = {}
    for place, answer in enumerate(answers):
        places.setdefault(answer["perspective"], []).append(place)
    right = {name: [place for place in own if answers[place]["label"] == gold] for name, own in places.items()}
    usable = {name: [place for place in own if may_be_chosen[place]] for name, own in right.items()}
    outcomes = []
    for name in sorted(places):
        prediction = predicted_label([answers[place] for place in places[name]])
        others = [other for other in sorted(usable) if other != name and usable[other]]
        reason = _why_not(prediction, gold, right, usable, bool(others) or allow_same_perspective)
        if reason:
            outcomes.append(Outcome(name, reason))
            continue
        wrong = [place for place in places[name] if answers[place]["label"] == prediction]
        key = [answers[0]["pair_id"], name, seed]
        source = draw(others, [*key, "perspective"]) if others else name
        chosen, rejected = draw(usable[source], [*key, "chosen"]), draw(wrong, [*key, "rejected"])
        outcomes.append(Outcome(name, None, chosen, rejected))
    return outcomes


def predicted_label(answers: Sequence[Row]) -> str | None:
    """The label that most answers give, on a tie the one of the lowest sample; None when none was parsed."""
    labels = [row["label"] for row in sorted(answers, key=lambda row: row["sample"]) if row["label"] is not None]
    votes = Counter(labels)  # counts in order of first occurrence, and max takes the first of equals
    return max(votes, key=lambda label: votes[label]) if votes else None


def _why_not(
    prediction: str | None, gold: str, right: dict[str, list[int]], usable: dict[str, list[int]], may_use: bool
) -> str | None:
    if prediction is None:
        return "no_answer"
    if prediction == gold:
        return "no_conflict"
    if not any(right.values()):
        return "no_right_rationale"
    if not any(usable.values()):
        return "unsupported"
    return None if may_use else "only_same_perspective"


def draw(options: Sequence[Any], key: list[Any]) -> Any:
    """One of the options, the same for the same key wherever and in whatever order it is asked."""
    digest = hashlib.blake2b(json.dumps(key).encode(), digest_size=8).digest()
    return options[int.from_bytes(digest) % len(options)]
