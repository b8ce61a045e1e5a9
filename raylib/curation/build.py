"""Builds the sft and preferences tables from answered pairs, and counts everything that does not get in."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from raylib.curation.conflicts import mine_conflicts
from raylib.curation.consistency import completion, consistent_answers
from raylib.curation.faithfulness import Lexicon, Support, support
from raylib.curation.inputs import Answered, check_not_held_out
from raylib.curation.rewards import Reward, rank_by_reward
from raylib.labels import LabelSchema
from raylib.prompts import Perspective

Row = dict[str, Any]


@dataclass
class Tally:
    """Counts of one curation; `rejected` rows wait here until the job writes them."""

    rows_in: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    rejected_rows: list[Row] = field(default_factory=list)
    facts: Counter[str] = field(default_factory=Counter)
    seen: dict[str, Counter[str]] = field(default_factory=dict)  # dimension -> value -> rows that could have got in
    kept: dict[str, Counter[str]] = field(default_factory=dict)
    named: dict[str, Counter[str]] = field(default_factory=dict)  # by perspective, what answers name

    def reject(self, reason: str, pair_id: str, perspective: str, **more: Any) -> None:
        """Put a row aside; the payload is its key in the rationales table."""
        payload = json.dumps({"pair_id": pair_id, "perspective": perspective, **more})
        self.rejected_rows.append(
            {"stage": "curate", "reason": reason, "detail": perspective, "payload": payload, "attempt": 1}
        )

    def count(self, pair: Row, perspective: str, is_kept: bool) -> None:
        """Count a row by class, locale and perspective."""
        for dimension, value in (("class", pair["gold"]), ("locale", pair["locale"]), ("perspective", perspective)):
            self.seen.setdefault(dimension, Counter())[value] += 1
            self.kept.setdefault(dimension, Counter())[value] += is_kept

    def count_support(self, perspective: str, support: Support) -> None:
        """Count what an answer names and its pair does not hold."""
        self.named.setdefault(perspective, Counter()).update(
            num_answers=1,
            num_mentions=support.num_mentions,
            num_unsupported=support.num_unsupported,
            num_unfaithful_answers=bool(support.num_unsupported),
        )

    def yields(self) -> dict[str, dict[str, dict[str, float]]]:
        """Dimension -> value -> rows in, rows out and their ratio, over judged training pairs."""
        return {
            dimension: {
                value: {
                    "rows_in": total,
                    "rows_out": self.kept[dimension][value],
                    "yield": round(self.kept[dimension][value] / total, 4),
                }
                for value, total in sorted(counts.items())
            }
            for dimension, counts in self.seen.items()
        }

    def faithfulness(self) -> dict[str, dict[str, float]]:
        """Perspective -> what its answers name, and the share of it that their pairs do not hold."""
        return {
            perspective: {
                **counts,
                "unsupported": round(counts["num_unsupported"] / max(counts["num_mentions"], 1), 4),
            }
            for perspective, counts in sorted(self.named.items())
        }


@dataclass(frozen=True)
class TrainingPair:
    """A training pair with its answers and what each of them names."""

    pair: Row
    answers: list[Row]
    supports: list[Support]


@dataclass(frozen=True)
class Curator:
    """What curation asks of every pair and answer.

    `unified` is the prompt under which the teacher trains and is asked later; with `max_unsupported` an answer that
    names a larger share of brands and values that its pair does not hold is not learnt from.
    """

    unified: Perspective
    schema: LabelSchema
    num_few_shots: int
    held_out: set[tuple[str, str]]
    lexicon: Lexicon
    max_unsupported: float | None
    seed: int

    def prompt(self, pair: Row) -> list[dict[str, str]]:
        """Chat messages."""
        return self.unified.messages(self.schema, pair, self.num_few_shots)

    def training_pairs(self, answered: Iterable[Answered], tally: Tally, by: str) -> Iterator[TrainingPair]:
        """The judged pairs of the train split; the others are counted as skipped, `by` answer, perspective or pair.

        Raises InputError on a query of dev or test.
        """
        for item in answered:
            rows_in = {
                "answer": len(item.answers),
                "perspective": len({answer["perspective"] for answer in item.answers}),
                "pair": 1,
            }[by]
            tally.rows_in += rows_in
            if item.skip_reason:
                tally.skipped[item.skip_reason] += rows_in
                continue
            check_not_held_out(item.pair, self.held_out)
            tally.facts["num_pairs"] += 1
            supports = [self.support(answer, item.pair, tally) for answer in item.answers]
            yield TrainingPair(item.pair, item.answers, supports)

    def support(self, answer: Row, pair: Row, tally: Tally) -> Support:
        """What an answer names, counted; an answer without a label has said nothing."""
        if answer["label"] is None:
            return Support(0, 0, 0.0)
        found = support(answer["rationale"], pair, self.lexicon)
        tally.count_support(answer["perspective"], found)
        return found

    def is_faithful(self, found: Support) -> bool:
        """Whether an answer may be learnt from."""
        return self.max_unsupported is None or found.unsupported <= self.max_unsupported


def sft_rows(answered: Iterable[Answered], curator: Curator, tally: Tally) -> Iterator[Row]:
    """Rows of the sft table, with the class under `gold`; one row in is one answer."""
    for item in curator.training_pairs(answered, tally, "answer"):
        kept, dropped = consistent_answers(item.answers, item.pair["gold"])
        found = {_place(answer): one for answer, one in zip(item.answers, item.supports, strict=True)}
        dropped += [(answer, "unsupported") for answer in kept if not curator.is_faithful(found[_place(answer)])]
        kept = [answer for answer in kept if curator.is_faithful(found[_place(answer)])]
        for answer, reason in dropped:
            tally.reject(reason, answer["pair_id"], answer["perspective"], sample=answer["sample"])
            tally.count(item.pair, answer["perspective"], False)
        tally.facts["num_pairs_kept"] += bool(kept)
        for answer in kept:
            tally.count(item.pair, answer["perspective"], True)
            yield {
                "pair_id": answer["pair_id"],
                "perspective": answer["perspective"],
                "prompt": curator.prompt(item.pair),
                "completion": completion(answer),
                "unsupported": found[_place(answer)].unsupported,
                "gold": item.pair["gold"],
                "key": [answer["pair_id"], answer["perspective"], answer["sample"]],
            }


def _place(answer: Row) -> tuple[str, int]:
    """What names an answer among those of its pair."""
    return answer["perspective"], answer["sample"]


def conflict_rows(
    answered: Iterable[Answered], curator: Curator, tally: Tally, allow_same_perspective: bool
) -> Iterator[Row]:
    """Rows of the preferences table as `sft_rows`; one row in is one pair under one perspective."""
    for item in curator.training_pairs(answered, tally, "perspective"):
        may_be_chosen = [curator.is_faithful(found) for found in item.supports]
        outcomes = mine_conflicts(item.answers, item.pair["gold"], curator.seed, allow_same_perspective, may_be_chosen)
        tally.facts["num_conflict_pairs"] += any(o.reason not in ("no_answer", "no_conflict") for o in outcomes)
        for outcome in outcomes:
            tally.count(item.pair, outcome.perspective, outcome.reason is None)
            if outcome.reason == "no_conflict":
                tally.skipped["no_conflict"] += 1
            elif outcome.reason:
                tally.reject(outcome.reason, item.pair["pair_id"], outcome.perspective)
            elif outcome.chosen is not None and outcome.rejected is not None:
                is_same = item.answers[outcome.chosen]["perspective"] == outcome.perspective
                tally.facts["num_same_perspective"] += is_same
                yield _preference(item, curator, tally, outcome.chosen, outcome.rejected)


def reward_rows(answered: Iterable[Answered], curator: Curator, tally: Tally, reward: Reward) -> Iterator[Row]:
    """Rows of the preferences table as `sft_rows`, by reward; one row in is one pair."""
    for item in curator.training_pairs(answered, tally, "pair"):
        gold = item.pair["gold"]
        scores = [reward.score(answer, gold, found) for answer, found in zip(item.answers, item.supports, strict=True)]
        may_be_chosen = [curator.is_faithful(found) for found in item.supports]
        ranked = rank_by_reward(item.answers, gold, scores, reward.margin, curator.seed, may_be_chosen)
        if ranked.chosen is None or ranked.rejected is None:
            tally.reject(str(ranked.reason), item.pair["pair_id"], "all")
            tally.count(item.pair, "all", False)
            continue
        tally.count(item.pair, "all", True)
        row = _preference(item, curator, tally, ranked.chosen, ranked.rejected)
        yield {**row, "chosen_reward": scores[ranked.chosen], "rejected_reward": scores[ranked.rejected]}


def _preference(item: TrainingPair, curator: Curator, tally: Tally, chosen: int, rejected: int) -> Row:
    winner, loser = item.answers[chosen], item.answers[rejected]
    tally.facts[f"chosen_from_{winner['perspective']}"] += 1
    return {
        "pair_id": item.pair["pair_id"],
        "prompt": curator.prompt(item.pair),
        "chosen": completion(winner),
        "rejected": completion(loser),
        "chosen_perspective": winner["perspective"],
        "rejected_perspective": loser["perspective"],
        "chosen_unsupported": item.supports[chosen].unsupported,
        "rejected_unsupported": item.supports[rejected].unsupported,
        "chosen_reward": None,
        "rejected_reward": None,
        "gold": item.pair["gold"],
        "key": [item.pair["pair_id"], loser["perspective"]],
    }
