"""Preferences from a reward of several dimensions. Source: arXiv 2510.11056, step 3.

The paper names no dimensions and no weights; ours are whether the label is right, how faithful the rationale is to the
texts, how much of what the query asks it covers, and whether its length is within bounds. Each lies in [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, model_validator

from raylib.config import Section
from raylib.curation.conflicts import draw
from raylib.curation.faithfulness import Support, split_words

Row = dict[str, Any]


class Reward(Section):
    """Weights of the dimensions, and the margin between chosen and rejected."""

    correctness: float = Field(1.0, ge=0, description="weight of: the label is the gold one")
    faithfulness: float = Field(0.5, ge=0, description="weight of: 1 - share of unsupported brands and values")
    coverage: float = Field(0.25, ge=0, description="weight of: share of the query's brand and values it names")
    length: float = Field(0.25, ge=0, description="weight of: words within min_words and max_words")
    min_words: int = Field(5, ge=0, description="fewer lose length's reward in proportion")
    max_words: int = Field(120, ge=1, description="more lose length's reward in proportion, all of it at twice as many")
    margin: float = Field(0.25, gt=0, lt=1, description="least difference between chosen and rejected, of 1 in all")

    @model_validator(mode="after")
    def _any(self) -> "Reward":
        if not self.correctness + self.faithfulness + self.coverage + self.length:
            raise ValueError("all weights are 0: nothing tells answers apart; give one of them a weight")
        if self.min_words > self.max_words:
            raise ValueError(f"min_words {self.min_words} is above max_words {self.max_words}")
        return self

    def score(self, answer: Row, gold: str, support: Support) -> float:
        """The weighted mean of the dimensions, in [0, 1]."""
        dimensions = {
            "correctness": float(answer["label"] == gold),
            "faithfulness": 1.0 - support.unsupported,
            "coverage": support.coverage,
            "length": self.length_reward(len(split_words(answer["rationale"]))),
        }
        weights = {name: getattr(self, name) for name in dimensions}
        return float(sum(weights[name] * value for name, value in dimensions.items()) / sum(weights.values()))

    def length_reward(self, num_words: int) -> float:
        """1 within the bounds, falling to 0 at no word and at twice the upper bound."""
        if num_words < self.min_words:
            return num_words / self.min_words
        return max(0.0, min(1.0, 2.0 - num_words / self.max_words))


@dataclass(frozen=True)
class Ranked:
    """The preference of one pair as places among its answers, or the reason why there is none."""

    reason: str | None = None
    chosen: int | None = None
    rejected: int | None = None


def rank_by_reward(
    answers: Sequence[Row],
    gold: str,
    rewards: Sequence[float],
    margin: float,
    seed: int,
    may_be_chosen: Sequence[bool],
) -> Ranked:
    """Chosen is a right answer with the highest reward, rejected one at least `margin` below it, drawn by the seed.

    Reasons: `no_answer` (nothing was parsed), `no_right_rationale` (nothing right to choose: a wrong label may win by
    its style, and must not be taught), `unsupported` (right ones, but none that may be chosen), `no_margin` (all
    answers are about as good).
    """
    parsed = [place for place, answer in enumerate(answers) if answer["label"] is not None]
    right = [place for place in parsed if answers[place]["label"] == gold]
    usable = [place for place in right if may_be_chosen[place]]
    for candidates, reason in ((parsed, "no_answer"), (right, "no_right_rationale"), (usable, "unsupported")):
        if not candidates:
            return Ranked(reason)
    best = max(rewards[place] for place in usable)
    lower = [place for place in parsed if rewards[place] <= best - margin]
    if not lower:
        return Ranked("no_margin")
    key = [answers[0]["pair_id"], seed]
    chosen = draw([place for place in usable if rewards[place] == best], [*key, "chosen"])
    return Ranked(None, chosen, draw(lower, [*key, "rejected"]))
