"""Builds the sft and preferences tables from answered pairs, and counts everything that does not get in."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from raylib.curation.conflicts import mine_conflicts
from raylib.curation.consistency import completion, consistent_answers
from raylib.curation.inputs import Answered, check_not_held_out
from raylib.labels import LabelSchema
from raylib.prompts import Perspective

Row = dict[str, Any]


@dataclass
class Tally:
    """Counts of one curation; `rejected` rows wait here until the job writes them."""

    rows_in: int = 0
    rows_out: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    rejected_rows: list[Row] = field(default_factory=list)
    facts: Counter[str] = field(default_factory=Counter)
    seen: dict[str, Counter[str]] = field(default_factory=dict)  # dimension -> value -> rows that could have got in
    kept: dict[str, Counter[str]] = field(default_factory=dict)

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
        self.rows_out += is_kept

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


@dataclass(frozen=True)
class Prompter:
    """The unified prompt of a pair: what training shows, and what the trained teacher is asked."""

    unified: Perspective
    schema: LabelSchema
    num_few_shots: int

    def __call__(self, pair: Row) -> list[dict[str, str]]:
        """Chat messages."""
        return self.unified.messages(self.schema, pair, self.num_few_shots)


def sft_rows(
    answered: Iterable[Answered], prompter: Prompter, held_out: set[tuple[str, str]], tally: Tally
) -> Iterator[Row]:
    """Rows of the sft table; one row in is one answer. Raises InputError on a query of dev or test."""
    for item in answered:
        tally.rows_in += len(item.answers)
        if item.skip_reason:
            tally.skipped[item.skip_reason] += len(item.answers)
            continue
        check_not_held_out(item.pair, held_out)
        kept, dropped = consistent_answers(item.answers, item.pair["gold"])
        for answer, reason in dropped:
            tally.reject(reason, answer["pair_id"], answer["perspective"], sample=answer["sample"])
            tally.count(item.pair, answer["perspective"], False)
        tally.facts["num_pairs"] += 1
        tally.facts["num_pairs_kept"] += bool(kept)
        for answer in kept:
            tally.count(item.pair, answer["perspective"], True)
            yield {
                "pair_id": answer["pair_id"],
                "perspective": answer["perspective"],
                "prompt": prompter(item.pair),
                "completion": completion(answer),
            }


def preference_rows(
    answered: Iterable[Answered],
    prompter: Prompter,
    held_out: set[tuple[str, str]],
    tally: Tally,
    seed: int,
    allow_same_perspective: bool,
) -> Iterator[Row]:
    """Rows of the preferences table; one row in is one pair under one perspective. Raises InputError as `sft_rows`."""
    for item in answered:
        perspectives = {answer["perspective"] for answer in item.answers}
        tally.rows_in += len(perspectives)
        if item.skip_reason:
            tally.skipped[item.skip_reason] += len(perspectives)
            continue
        check_not_held_out(item.pair, held_out)
        outcomes = mine_conflicts(item.answers, item.pair["gold"], seed, allow_same_perspective)
        tally.facts["num_pairs"] += 1
        tally.facts["num_conflict_pairs"] += any(o.reason not in ("no_answer", "no_conflict") for o in outcomes)
        for outcome in outcomes:
            tally.count(item.pair, outcome.perspective, outcome.reason is None)
            if outcome.reason == "no_conflict":
                tally.skipped["no_conflict"] += 1
            elif outcome.reason:
                tally.reject(outcome.reason, item.pair["pair_id"], outcome.perspective)
            elif outcome.chosen and outcome.rejected:
                is_same = outcome.chosen["perspective"] == outcome.perspective
                tally.facts["num_same_perspective"] += is_same
                tally.facts[f"chosen_from_{outcome.chosen['perspective']}"] += 1
                yield {
                    "pair_id": item.pair["pair_id"],
                    "prompt": prompter(item.pair),
                    "chosen": completion(outcome.chosen),
                    "rejected": completion(outcome.rejected),
                    "chosen_perspective": outcome.chosen["perspective"],
                    "rejected_perspective": outcome.perspective,
                }
