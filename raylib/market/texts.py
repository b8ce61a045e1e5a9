"""Texts of items and queries as sellers and shoppers write them: word order, noise, stuffing, typing errors, units.

All of it is a function of keys, built by array look-ups: a text is a row of word ids [N, S], ABSENT where a slot is
empty. Shares of noise are ours; no source publishes them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raylib.market import draws
from raylib.market.catalogue import ANY, Facts
from raylib.market.draws import Ints, Keys
from raylib.market.vocabulary import ABSENT, Vocabulary

TYPO_SHARE = 0.03  # of words
OTHER_UNIT_SHARE = 0.15  # of measures, in titles and in queries: 1500 ml for 1.5 l
STUFFING_SHARE = 0.08  # of titles that end in the names of two other kinds of product

# Slots of a title: 0 brand, 1 model, 2 kind or accessory, 3 color, 4 measure, 5 use, 6 noise, 7 noise, 8 and 9 stuffing
TITLE_ORDERS = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [2, 0, 1, 4, 3, 5, 6, 7, 8, 9],
        [6, 0, 2, 1, 3, 5, 4, 7, 8, 9],
        [0, 2, 1, 5, 4, 3, 7, 6, 8, 9],
        [6, 7, 3, 2, 0, 1, 5, 4, 8, 9],
        [4, 2, 5, 0, 1, 3, 6, 7, 8, 9],
    ]
)
# An accessory names what it fits: "phone case fits Nordel X5 black"; slot 4 holds "fits", 5 stays empty.
ACCESSORY_ORDERS = np.array(
    [[2, 4, 0, 1, 3, 6, 7, 8, 9, 5], [3, 2, 4, 0, 1, 6, 7, 8, 9, 5], [6, 2, 7, 4, 0, 1, 3, 8, 9, 5]]
)
# Slots of a query: 0 brand, 1 model, 2 kind or accessory, 3 color, 4 measure, 5 use, 6 wish
QUERY_ORDERS = np.array([[6, 0, 2, 1, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6], [6, 3, 2, 4, 5, 0, 1], [2, 0, 1, 4, 3, 5, 6]])


@dataclass(frozen=True)
class ItemTexts:
    """Columns of N items; `measure` holds the ids of the measure as a reader finds it first."""

    title: pa.Array
    brand: pa.Array
    category: pa.Array
    attributes: pa.Array
    measure: Ints


def item_texts(facts: Facts, keys: Keys, vocabulary: Vocabulary) -> ItemTexts:
    """Texts of the items [N]. Every fact stands in the title or in its own column: none is left out of both."""
    chance = [draws.uniform(keys, 100 + i) for i in range(9)]
    is_accessory = facts.is_accessory == 1
    family = vocabulary.measure_K[facts.kind]
    brand = vocabulary.brand_B[facts.brand]
    color = vocabulary.color_LC[facts.locale, facts.color]
    other_unit = (chance[0] < OTHER_UNIT_SHARE).astype(np.int64)
    measure = vocabulary.measure_FVU[family, facts.measure, other_unit]
    use = vocabulary.use_LU[facts.locale, facts.use]
    title_brand, title_color = chance[1] < 0.92, chance[2] < 0.85
    title_measure, title_use = chance[3] < 0.9, chance[4] < 0.8
    noise = [draws.integers(keys, 120 + i, vocabulary.noise_LN.shape[1]) for i in range(2)]
    num_kinds = len(vocabulary.kinds)
    stuffing = [(facts.kind + 1 + draws.integers(keys, salt, num_kinds - 1)) % num_kinds for salt in (122, 127)]
    slots = np.stack(
        [
            np.where(title_brand, brand, ABSENT),
            vocabulary.model_BKM[facts.brand, facts.kind, facts.model],
            np.where(
                is_accessory,
                vocabulary.accessory_LK[facts.locale, facts.kind],
                vocabulary.kind_LK[facts.locale, facts.kind],
            ),
            np.where(title_color, color, ABSENT),
            np.where(is_accessory, vocabulary.fits_L[facts.locale], np.where(title_measure, measure, ABSENT)),
            np.where(title_use & ~is_accessory, use, ABSENT),
            np.where(chance[5] < 0.5, vocabulary.noise_LN[facts.locale, noise[0]], ABSENT),
            np.where(chance[6] < 0.25, vocabulary.noise_LN[facts.locale, noise[1]], ABSENT),
            np.where(chance[7] < STUFFING_SHARE, vocabulary.kind_LK[facts.locale, stuffing[0]], ABSENT),
            np.where(chance[7] < STUFFING_SHARE, vocabulary.kind_LK[facts.locale, stuffing[1]], ABSENT),
        ],
        axis=1,
    )
    orders = np.concatenate([TITLE_ORDERS, ACCESSORY_ORDERS])
    order = np.where(
        is_accessory,
        len(TITLE_ORDERS) + draws.integers(keys, 123, len(ACCESSORY_ORDERS)),
        draws.integers(keys, 124, len(TITLE_ORDERS)),
    )
    title = np.take_along_axis(slots, orders[order], axis=1)

    has_attributes = (chance[8] < 0.5) | ~title_color | (~is_accessory & ~(title_measure & title_use))
    pairs = np.stack(
        [
            vocabulary.color_pair_LC[facts.locale, facts.color],
            np.where(is_accessory, ABSENT, vocabulary.measure_pair_FV[family, facts.measure]),
            np.where(is_accessory, ABSENT, vocabulary.use_pair_LU[facts.locale, facts.use]),
        ],
        axis=1,
    )
    path = np.stack(
        [
            vocabulary.department_LD[facts.locale, vocabulary.department_K[facts.kind]],
            vocabulary.kind_LK[facts.locale, facts.kind],
            np.where(is_accessory, vocabulary.in_accessories_L[facts.locale], ABSENT),
        ],
        axis=1,
    )
    has_brand = ~title_brand | (draws.uniform(keys, 125) < 0.7)
    usual_measure = vocabulary.measure_FVU[family, facts.measure, 0]
    return ItemTexts(
        title=_join(_with_typos(title, keys, vocabulary), " ", vocabulary),
        brand=_or_null(vocabulary.words.take(pa.array(brand)), has_brand),
        category=_or_null(_join(path, " > ", vocabulary), draws.uniform(keys, 126) < 0.5),
        attributes=_or_null(_join(pairs, "; ", vocabulary), has_attributes),
        measure=np.where(is_accessory, ABSENT, np.where(title_measure, measure, usual_measure)),
    )


def query_texts(facts: Facts, keys: Keys, vocabulary: Vocabulary) -> tuple[pa.Array, Ints]:
    """Texts of the queries [N] and the ids [N] of the measure they name (ABSENT where none)."""
    is_accessory = facts.is_accessory == 1
    kind = np.where(
        is_accessory,
        vocabulary.accessory_LK[facts.locale, facts.kind],
        vocabulary.kind_LK[facts.locale, facts.kind],
    )
    other_unit = (draws.uniform(keys, 100) < OTHER_UNIT_SHARE).astype(np.int64)
    measure = vocabulary.measure_FVU[vocabulary.measure_K[facts.kind], facts.measure, other_unit]
    measure = np.where(facts.measure != ANY, measure, ABSENT)
    wish = vocabulary.wish_LN[facts.locale, draws.integers(keys, 101, vocabulary.wish_LN.shape[1])]
    slots = np.stack(
        [
            np.where(facts.brand != ANY, vocabulary.query_brand_B[facts.brand], ABSENT),
            np.where(facts.model != ANY, vocabulary.query_model_BKM[facts.brand, facts.kind, facts.model], ABSENT),
            kind,
            np.where(facts.color != ANY, vocabulary.color_LC[facts.locale, facts.color], ABSENT),
            measure,
            np.where(facts.use != ANY, vocabulary.use_LU[facts.locale, facts.use], ABSENT),
            np.where(draws.uniform(keys, 102) < 0.5, wish, ABSENT),
        ],
        axis=1,
    )
    order = QUERY_ORDERS[draws.integers(keys, 103, len(QUERY_ORDERS))]
    words = _with_typos(np.take_along_axis(slots, order, axis=1), keys, vocabulary)
    return _join(words, " ", vocabulary), measure


def _with_typos(words_NS: Ints, keys: Keys, vocabulary: Vocabulary) -> Ints:
    """Ids with a share of the words misspelt."""
    chance = np.stack([draws.uniform(keys, 200 + i) for i in range(words_NS.shape[1])], axis=1)
    return np.where((chance < TYPO_SHARE) & (words_NS != ABSENT), words_NS + vocabulary.num_words, words_NS)


def _join(words_NS: Ints, separator: str, vocabulary: Vocabulary) -> pa.Array:
    """One string a row, of its present words in order."""
    is_present = words_NS != ABSENT
    offsets = np.concatenate([[0], np.cumsum(is_present.sum(axis=1))]).astype(np.int32)
    words = vocabulary.words.take(pa.array(words_NS[is_present]))
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), words), separator)


def _or_null(column: pa.Array, is_present: npt.NDArray[np.bool_]) -> pa.Array:
    """The column with nulls where it is not present."""
    return pc.if_else(pa.array(is_present), column, pa.scalar(None, pa.string()))
