"""The two tables that curation joins: the teacher's answers, and the pairs with their gold labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from raylib import tables
from raylib.errors import InputError

Row = dict[str, Any]

ANSWER_COLUMNS = ("pair_id", "perspective", "sample", "rationale", "label", "error")
PAIR_COLUMNS = ("pair_id", "query", "locale", "title", "brand", "category", "attributes", "gold", "split")


@dataclass(frozen=True)
class Answered:
    """One pair with all of its answers, which are in order of (perspective, sample)."""

    pair: Row
    answers: list[Row]

    @property
    def skip_reason(self) -> str | None:
        """Why the pair is no training material: `not_train`, `no_gold`, or None when it is."""
        if self.pair["split"] != "train":
            return "not_train"
        return "no_gold" if self.pair["gold"] is None else None


def read_answered(pairs_uri: str, rationales_uri: str, perspectives: Sequence[str] | None) -> Iterator[Answered]:
    """Every answered pair; answers of perspectives that are not named are left out (None = all of them).

    Memory is that of the annotated pairs and of one file of answers. Raises InputError when the pairs table lacks a
    pair, or when the answers of one pair lie in several files (jobs.annotate writes them into one).
    """
    pairs = _annotated_pairs(pairs_uri, rationales_uri)
    finished: set[str] = set()
    for file in tables.list_parquet(rationales_uri):
        by_pair: dict[str, list[Row]] = {}
        for batch in tables.read_batches(file, tables.RATIONALES, ANSWER_COLUMNS):
            for row in batch.to_pylist():
                by_pair.setdefault(row["pair_id"], []).append(row)
        twice = finished & by_pair.keys()
        if twice:
            raise InputError(f"{file}: answers of pair {min(twice)} also lie in an earlier file; annotate in one run")
        finished |= by_pair.keys()
        for pair_id, rows in by_pair.items():
            rows.sort(key=lambda row: (row["perspective"], row["sample"]))
            kept = [row for row in rows if perspectives is None or row["perspective"] in perspectives]
            yield Answered(pairs[pair_id], kept)


def held_out_queries(pairs_uri: str) -> set[tuple[str, str]]:
    """(locale, query) of all dev and test pairs; none of them may occur in training data."""
    queries: set[tuple[str, str]] = set()
    for batch in tables.read_batches(pairs_uri, tables.PAIRS, ("locale", "query", "split")):
        queries.update((row["locale"], row["query"]) for row in batch.to_pylist() if row["split"] != "train")
    return queries


def check_not_held_out(pair: Row, held_out: set[tuple[str, str]]) -> None:
    """Raise InputError when a training pair's query is also one of dev or test."""
    if (pair["locale"], pair["query"]) in held_out:
        raise InputError(
            f"query {pair['query']!r} ({pair['locale']}) is in train and in dev or test: figures on those splits would "
            "be worthless; split the pairs table by query (jobs.prepare does)"
        )


def _annotated_pairs(pairs_uri: str, rationales_uri: str) -> dict[str, Row]:
    wanted: set[str] = set()
    for batch in tables.read_batches(rationales_uri, tables.RATIONALES, ("pair_id",)):
        wanted.update(batch.column("pair_id").to_pylist())
    pairs: dict[str, Row] = {}
    for batch in tables.read_batches(pairs_uri, tables.PAIRS, PAIR_COLUMNS):
        pairs.update((row["pair_id"], row) for row in batch.to_pylist() if row["pair_id"] in wanted)
    unknown = wanted - pairs.keys()
    if unknown:
        raise InputError(
            f"{rationales_uri}: {len(unknown)} of {len(wanted)} pairs are not in {pairs_uri}, e.g. {min(unknown)}; "
            "name the pairs table from which they were annotated"
        )
    return pairs
