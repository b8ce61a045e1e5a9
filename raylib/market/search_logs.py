"""Search logs of the marketplace: who searched what, what was shown where, what was clicked, and some human labels.

Shapes: N rows, Q searches, P competitors of a query.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raylib import tables
from raylib.logs.rows import LOG
from raylib.market import draws
from raylib.market.catalogue import LABELS, Facts, draw_items, draw_queries, encode, gold_labels, radices
from raylib.market.draws import Floats, Ints
from raylib.market.texts import item_texts, query_texts
from raylib.market.vocabulary import Vocabulary

QUERY, ITEM, COMPETITOR, JUDGED_QUERY, JUDGED_ITEM = range(5)  # purposes of keyed draws
NUM_SHOWN = 10  # items on one result page
NUM_COMPETITORS = 16  # items that the engine ranks for a query
SEARCHES_PER_CHUNK = 4_000
ENGLISH_SHARE = 0.5  # of queries; the other locales share the rest
# Position-biased clicks: P(click) = P(examined | position) x P(attracted | class), the examination hypothesis of
# Craswell et al. 2008; 1/position is their usual decay, the attraction figures are ours.
EXAMINATION = 1.0 / np.arange(1, NUM_SHOWN + 1)
ATTRACTION = np.array([0.45, 0.15, 0.02, 0.20, 0.22, 0.05])  # in class order
RANKER_SKILL, RANKER_NOISE = 0.5, 0.5  # the engine orders by skill x attraction + noise x uniform


@dataclass(frozen=True)
class Market:
    """A marketplace: all draws follow from `seed`; the catalogue and its words are the same for every seed."""

    seed: int
    num_queries: int
    num_items: int
    locales: Sequence[str]
    gold_share: float

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The words."""
        return Vocabulary()

    @property
    def catalogue_size(self) -> int:
        """Items in the catalogue."""
        return self.num_listings * self.vocabulary.num_products * len(self.locales)

    @property
    def num_listings(self) -> int:
        """Listings of each product; at least one, so the catalogue is never smaller than its products."""
        return max(1, self.num_items // (self.vocabulary.num_products * len(self.locales)))

    @cached_property
    def locale_weights(self) -> Floats:
        """Share of each of the vocabulary's locales."""
        rest = [name for name in self.locales if name != "en"]
        english = ENGLISH_SHARE if rest else 1.0
        share = {name: (1.0 - english * ("en" in self.locales)) / max(1, len(rest)) for name in rest} | {"en": english}
        return np.array([share[name] if name in self.locales else 0.0 for name in self.vocabulary.locales])

    @cached_property
    def zipf_cumulative(self) -> Floats:
        """Cumulative probability of the query of each rank: P(rank) ~ 1 / rank."""
        cumulative: Floats = np.cumsum(1.0 / np.arange(1, self.num_queries + 1))
        cumulative /= cumulative[-1]
        return cumulative

    def queries(self, query: Ints) -> tuple[Facts, Ints]:
        """What the queries of these ranks ask for, and their patterns."""
        return draw_queries(query, draws.keyed(query, self.seed, QUERY), self.locale_weights, self.vocabulary)

    def competitors(self, query: Ints, asked: Facts, pattern: Ints, competitor: Ints) -> tuple[Facts, Ints]:
        """Facts and codes of the items [N] that compete as number `competitor` [N] for the queries [N]."""
        keys = draws.keyed(query * NUM_COMPETITORS + competitor, self.seed, COMPETITOR)
        item = draw_items(asked, pattern, keys, self.vocabulary)
        code = encode(item, draws.integers(keys, 60, self.num_listings), self.num_listings, self.vocabulary)
        return item, code

    def is_judged(self, asked: Facts, code: Ints) -> npt.NDArray[np.bool_]:
        """Which pairs [N] a human judged; a function of the pair alone, so all rows of a pair agree."""
        query_code = np.zeros(len(code), dtype=np.int64)
        for name, radix in radices(self.vocabulary).items():
            query_code = query_code * (radix + 1) + getattr(asked, name) + 1
        pair_keys = draws.keyed(query_code, self.seed, JUDGED_QUERY) ^ draws.keyed(code, self.seed, JUDGED_ITEM)
        return draws.uniform(pair_keys, 1) < self.gold_share


def log_chunk(market: Market, num_searches: int, generator: np.random.Generator) -> pa.RecordBatch:
    """Rows of `num_searches` result pages, NUM_SHOWN rows each."""
    vocabulary = market.vocabulary
    query_Q = np.searchsorted(market.zipf_cumulative, generator.random(num_searches), side="right")
    asked_Q, pattern_Q = market.queries(query_Q)
    rows = np.repeat(np.arange(num_searches), NUM_COMPETITORS)
    competitor = np.tile(np.arange(NUM_COMPETITORS), num_searches)
    asked = asked_Q.take(rows)
    item, code = market.competitors(query_Q[rows], asked, pattern_Q[rows], competitor)
    label = gold_labels(asked, item)

    rank_score = RANKER_SKILL * ATTRACTION[label] + RANKER_NOISE * generator.random(len(label))
    rank_score_QP = np.where(_is_repeat(code.reshape(num_searches, -1)), -1.0, rank_score.reshape(num_searches, -1))
    order_QP = np.argsort(-rank_score_QP, axis=1)[:, :NUM_SHOWN]
    shown = (order_QP + np.arange(num_searches)[:, None] * NUM_COMPETITORS).ravel()
    item, asked, code, label = item.take(shown), asked.take(shown), code[shown], label[shown]
    position = np.tile(np.arange(NUM_SHOWN), num_searches)
    is_clicked = generator.random(len(label)) < EXAMINATION[position] * ATTRACTION[label]

    texts = item_texts(item, draws.keyed(code, market.seed, ITEM), vocabulary)
    query_text, _ = query_texts(asked_Q, draws.keyed(query_Q, market.seed, QUERY), vocabulary)
    page = pa.array(shown // NUM_COMPETITORS)
    gold = pa.array(LABELS).take(pa.array(label, mask=~market.is_judged(asked, code)))
    columns = [
        query_text.take(page),
        pa.array(vocabulary.locales).take(pa.array(item.locale)),
        pc.binary_join_element_wise("item", pc.cast(pa.array(code), pa.string()), "-"),
        texts.title,
        texts.brand,
        texts.category,
        texts.attributes,
        pa.array(position + 1, pa.int32()),
        pa.array(np.ones(len(label), np.int64)),
        pa.array(is_clicked.astype(np.int64)),
        gold,
    ]
    return pa.RecordBatch.from_arrays(columns, schema=LOG)


def _is_repeat(code_QP: Ints) -> npt.NDArray[np.bool_]:
    """Competitors that are the same item as another one of their search; shown last, that is hardly ever."""
    order_QP = np.argsort(code_QP, axis=1)
    sorted_QP = np.take_along_axis(code_QP, order_QP, axis=1)
    is_repeat_QP = np.zeros(code_QP.shape, dtype=bool)
    np.put_along_axis(is_repeat_QP, order_QP[:, 1:], sorted_QP[:, 1:] == sorted_QP[:, :-1], axis=1)
    return is_repeat_QP


def write_logs(market: Market, uri: str, num_rows: int, rows_per_file: int) -> int:
    """Write `num_rows` log rows as `logs-*.parquet` below `uri`, in constant memory; returns the number of files.

    Each chunk has its own generator, seeded by (seed, file, chunk), so files are independent of each other: those that
    exist already are kept, and an interrupted run goes on with the first missing one.
    """
    num_files = -(-num_rows // rows_per_file)
    fs, path = tables.filesystem(uri)
    for file in range(num_files):
        name = f"logs-{file:05d}.parquet"
        if fs.get_file_info(f"{path}/{name}").is_file:
            continue
        rows = min(rows_per_file, num_rows - file * rows_per_file)
        tables.write_parquet(f"{uri}/{name}", LOG, _chunks(market, file, rows))
    return num_files


def _chunks(market: Market, file: int, num_rows: int) -> Iterator[pa.RecordBatch]:
    """The chunks of one file; the last one is cut to the rows asked for."""
    rows_per_chunk = SEARCHES_PER_CHUNK * NUM_SHOWN
    for chunk, start in enumerate(range(0, num_rows, rows_per_chunk)):
        rows = min(rows_per_chunk, num_rows - start)
        generator = np.random.default_rng([market.seed, file, chunk])
        yield log_chunk(market, -(-rows // NUM_SHOWN), generator).slice(0, rows)
