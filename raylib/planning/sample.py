"""A sample of the pairs that a run will work on, from the pairs table or, before there is one, from the logs.

Whole queries are drawn, by a hash of the normalised query: a pair's log rows are then all in or all out, so that
deduplication is that of the whole, and the pairs of a query, which share the beginning of their prompts, stay together.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raylib import tables
from raylib.annotation.units import pair_hash
from raylib.errors import InputError
from raylib.labels import LabelSchema
from raylib.logs import source, text
from raylib.logs.pairs import combine_stream, finish_bucket
from raylib.logs.query_key import query_hashes
from raylib.logs.validate import validate

Row = dict[str, Any]
DRAW = 0x706C616E  # another constant than the split's seed, so that the draw and the split are independent
COLUMNS = ("pair_id", "query", "locale", "title", "brand", "category", "attributes", "gold", "split")
BATCH_BYTES = 32 << 20  # of logs, decoded, read at once
LOG_ROWS_PER_PAIR = 50  # rows of logs that are read for each pair to sample: counting pairs is cheap, tokens are not
SEQUENCE_STEP = 1 << 36  # rows of a unit of logs are numbered from unit number * this, as in the shuffle


@dataclass(frozen=True)
class PairSample:
    """Sampled pairs, and how many there are in all."""

    rows: list[Row]
    is_complete: bool  # the rows are all pairs
    num_rows_in: int  # rows of the logs or of the pairs table
    num_pairs: dict[str, float]  # by split; estimates where `relative_error` is above 0
    num_judged: dict[str, float]
    relative_error: float  # standard error of the number of pairs, as a share of it

    def select(self, splits: Sequence[str], max_pairs: int | None) -> tuple[list[Row], float]:
        """Sampled pairs that annotation would take, and how many it takes in all.

        When the sample is the whole, these are exactly annotation's pairs. Else `max_pairs` only lowers the number:
        it draws by a hash of the pair, so that any sampled pair stands for those it takes.
        """
        rows = [row for row in self.rows if row["split"] in splits]
        if not rows and not self.is_complete:
            rows = self.rows  # a small sample without a pair of a small split: any pair stands for its prompts
        total = sum(self.num_pairs[split] for split in splits)
        if max_pairs is None or total <= max_pairs:
            return rows, total
        if self.is_complete:
            cutoff = sorted(pair_hash(row["pair_id"]) for row in rows)[max_pairs - 1]
            rows = [row for row in rows if pair_hash(row["pair_id"]) <= cutoff]
        return rows, float(max_pairs)


def sample_pairs(uri: str, sample_rows: int) -> PairSample:
    """Sample a pairs table; the counts are exact. Reads all of it once, holds the sample.

    Raises InputError when the table is missing, empty, or the sample is empty.
    """
    files = tables.list_parquet(uri)
    num_rows = sum(tables.open_parquet(file).metadata.num_rows for file in files)
    if not num_rows:
        raise InputError(f"{uri}: the pairs table is empty; there is nothing to plan for")
    share = min(1.0, sample_rows / num_rows)
    rows: list[Row] = []
    num_pairs: Counter[str] = Counter()
    num_judged: Counter[str] = Counter()
    for batch in tables.read_batches(uri, tables.PAIRS, COLUMNS):
        judged = batch.filter(batch.column("gold").is_valid())
        for counts, part in ((num_pairs, batch), (num_judged, judged)):
            for entry in pc.value_counts(part.column("split")).to_pylist():
                counts[entry["values"]] += entry["counts"]
        rows += batch.filter(pa.array(is_drawn(batch.column("query"), share))).to_pylist()
    _require(rows, uri, sample_rows)
    return PairSample(rows, share == 1.0, num_rows, _scaled(num_pairs, 1.0), _scaled(num_judged, 1.0), 0.0)


def sample_logs(
    plan: source.Plan,
    where: str,
    schema: LabelSchema,
    sample_rows: int,
    *,
    max_query_chars: int,
    max_title_chars: int,
    on_conflict: str,
    dev_share: float,
    test_share: float,
    seed: int,
) -> PairSample:
    """Sample planned logs: the pairs that jobs.prepare would make of the drawn queries' rows.

    Pairs are counted over LOG_ROWS_PER_PAIR x `sample_rows` log rows, and about `sample_rows` of them are kept.
    Unbiased: each query is in with probability `share`, and its pairs count 1 / share (Horvitz-Thompson).
    """
    num_rows = sum(unit.num_rows for unit in plan.units)
    share = min(1.0, LOG_ROWS_PER_PAIR * sample_rows / num_rows)

    def partials() -> Iterator[pa.Table]:
        for number, unit in enumerate(plan.units):
            start = number * SEQUENCE_STEP
            for table in source.read_unit(unit, BATCH_BYTES):
                drawn = table.filter(pa.array(is_drawn(table.column("query").combine_chunks(), share)))
                if drawn.num_rows:
                    yield validate(drawn, schema, max_query_chars, max_title_chars, start).partials
                start += table.num_rows

    combined = combine_stream(partials())
    pairs = finish_bucket(combined, 0, schema.names, on_conflict, dev_share, test_share, seed).pairs.combine_chunks()
    num_pairs = Counter(pairs["split"].to_pylist())
    num_judged = Counter(pairs.filter(pairs["gold"].is_valid())["split"].to_pylist())
    per_query = Counter(query_hashes(pairs["query"].combine_chunks()).tolist())
    error = ((1 - share) * sum(count**2 for count in per_query.values())) ** 0.5 / max(1, pairs.num_rows)
    kept_share = share * min(1.0, sample_rows / max(1, pairs.num_rows))
    kept = pairs.filter(pa.array(is_drawn(pairs["query"].combine_chunks(), kept_share)))
    rows = kept.select(COLUMNS).to_pylist()
    _require(rows, where, sample_rows)
    return PairSample(rows, kept_share == 1.0, num_rows, _scaled(num_pairs, share), _scaled(num_judged, share), error)


def is_drawn(queries: pa.StringArray, share: float) -> npt.NDArray[np.bool_]:
    """Which rows belong to a drawn query, each query with probability `share`; all of them for 1."""
    if share == 1.0:
        return np.ones(len(queries), dtype=bool)
    encoded = queries.dictionary_encode()
    values = encoded.dictionary
    values = pc.if_else(pa.array(text.invalid_utf8(values)), "", values.cast(pa.binary())).cast(pa.string())
    cleaned, _ = text.clean(values)
    hashes = query_hashes(cleaned)
    draws = text.mix(hashes, np.full(len(hashes), DRAW, dtype=np.uint64)) / np.float64(2**64)
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    drawn: npt.NDArray[np.bool_] = np.append(draws < share, False)[codes]
    return drawn


def _scaled(counts: Counter[str], share: float) -> dict[str, float]:
    return {split: counts[split] / share for split in tables.SPLITS}


def _require(rows: list[Row], where: str, sample_rows: int) -> None:
    if not rows:
        raise InputError(f"{where}: no pair among the {sample_rows} sampled rows; raise sample_rows")
