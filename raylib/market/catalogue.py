"""The catalogue, the queries and the truth between them, as integers; no text here.

The catalogue is implicit: an item is a code that spells out its facts in mixed radix, so a catalogue of any size costs
no memory. A query asks for some facts; which ones is its pattern.
"""

from dataclasses import dataclass, fields, replace
from typing import NamedTuple, Self

import numpy as np

from raylib.market import draws
from raylib.market.draws import Floats, Ints, Keys
from raylib.market.vocabulary import MODELS_PER_LINE, Vocabulary

ANY = -1  # a fact that a query does not ask for
STRONG, BRAND, CATEGORY, MODEL, ATTRIBUTE, ACCESSORY = range(6)  # class order of label_schemas/marketplace6.yaml
LABELS = ("Strongly Relevant", "Brand Mismatch", "Category Mismatch", "Model Mismatch", "Attribute Mismatch",
          "Accessory Mismatch")  # fmt: skip

ASKABLE = ("brand", "model", "color", "measure", "use")  # what a query may ask for besides role and kind


class Pattern(NamedTuple):
    """A form of query."""

    share: float  # of the queries
    is_accessory: int
    asks: tuple[int, ...]  # 1 where it asks for that fact of ASKABLE
    weights: tuple[float, ...]  # of the classes among the items that compete for it, in class order


# Ours; the weights balance the classes.
PATTERNS = (
    Pattern(0.12, 0, (0, 0, 0, 0, 1), (0.40, 0.00, 0.22, 0.00, 0.26, 0.22)),
    Pattern(0.16, 0, (1, 0, 0, 0, 0), (0.36, 0.38, 0.17, 0.00, 0.00, 0.17)),
    Pattern(0.24, 0, (1, 1, 0, 0, 0), (0.30, 0.15, 0.10, 0.42, 0.00, 0.11)),
    Pattern(0.08, 0, (0, 0, 1, 0, 0), (0.40, 0.00, 0.18, 0.00, 0.34, 0.18)),
    Pattern(0.08, 0, (0, 0, 0, 1, 0), (0.40, 0.00, 0.18, 0.00, 0.34, 0.18)),
    Pattern(0.07, 0, (1, 0, 1, 0, 0), (0.30, 0.20, 0.12, 0.00, 0.34, 0.12)),
    Pattern(0.07, 0, (1, 0, 0, 1, 0), (0.30, 0.20, 0.12, 0.00, 0.34, 0.12)),
    Pattern(0.06, 1, (0, 0, 0, 0, 0), (0.40, 0.00, 0.32, 0.00, 0.00, 0.38)),
    Pattern(0.12, 1, (1, 1, 0, 0, 0), (0.30, 0.18, 0.10, 0.36, 0.00, 0.14)),
)
_GOLDEN_RATIO = 0.5 * (5**0.5 - 1)
_MISMATCH_OF = {"brand": BRAND, "model": MODEL, "color": ATTRIBUTE, "measure": ATTRIBUTE, "use": ATTRIBUTE}
_SHARES = np.array([pattern.share for pattern in PATTERNS])
_IS_ACCESSORY = np.array([pattern.is_accessory for pattern in PATTERNS])
_ASKS = np.array([pattern.asks for pattern in PATTERNS])
_CLASS_CUMULATIVE = np.cumsum([np.array(pattern.weights) / sum(pattern.weights) for pattern in PATTERNS], axis=1)


@dataclass(frozen=True)
class Facts:
    """Facts of N items, or what N queries ask for (ANY = not asked); every field is an index array [N]."""

    locale: Ints
    is_accessory: Ints  # 1: an accessory that fits the brand, model and kind below
    kind: Ints
    brand: Ints
    model: Ints  # 0..2, among the models that the brand has of the kind
    color: Ints
    measure: Ints  # value of the one measure that a kind is sold by, e.g. litres of a kettle
    use: Ints

    def take(self, rows: Ints) -> Self:
        """Facts of the chosen rows."""
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def __len__(self) -> int:
        return len(self.kind)


def radices(vocabulary: Vocabulary) -> dict[str, int]:
    """How many values each field of Facts has, in field order."""
    sizes = (len(vocabulary.locales), 2, len(vocabulary.kinds), len(vocabulary.brands), MODELS_PER_LINE,
             len(vocabulary.colors), vocabulary.measure_FVU.shape[1], len(vocabulary.uses))  # fmt: skip
    return dict(zip((field.name for field in fields(Facts)), sizes, strict=True))


def encode(facts: Facts, listing: Ints, num_listings: int, vocabulary: Vocabulary) -> Ints:
    """Item codes [N] of products and the number of their listing (each seller lists a product anew)."""
    code = np.zeros(len(facts), dtype=np.int64)
    for name, radix in radices(vocabulary).items():
        code = code * radix + getattr(facts, name)
    return code * num_listings + listing


def decode(code: Ints, num_listings: int, vocabulary: Vocabulary) -> Facts:
    """Facts of the items [N] with these codes."""
    rest = code // num_listings
    values: dict[str, Ints] = {}
    for name, radix in reversed(radices(vocabulary).items()):
        rest, values[name] = np.divmod(rest, radix)
    return Facts(**values)


def draw_queries(rank: Ints, keys: Keys, locale_weights: Floats, vocabulary: Vocabulary) -> tuple[Facts, Ints]:
    """What the queries of these ranks and keys ask for, and their patterns [N].

    Locales follow a low-discrepancy sequence over the ranks, so that the few head queries have their mix too.
    """
    pattern = draws.choices(keys, 1, _SHARES)
    bounds = radices(vocabulary)
    asked = {
        name: np.where(_ASKS[pattern, i] == 1, draws.integers(keys, 10 + i, bounds[name]), ANY)
        for i, name in enumerate(ASKABLE)
    }
    spread = (rank + 1) * _GOLDEN_RATIO % 1.0
    cumulative = np.cumsum(locale_weights)
    locale = np.searchsorted(cumulative / cumulative[-1], spread, side="right")
    kind = draws.integers(keys, 3, bounds["kind"])
    return Facts(locale, _IS_ACCESSORY[pattern], kind, **asked), pattern


def draw_items(query: Facts, pattern: Ints, keys: Keys, vocabulary: Vocabulary) -> Facts:
    """One competing item for each query and key [N]; its class is drawn by the pattern's weights, then it is built so.

    A mismatch changes what its class says and keeps most of the rest, since sellers compete for the same query.
    """
    # Not choices(): every row has the weights of its own pattern.
    target = (draws.uniform(keys, 1)[:, None] >= _CLASS_CUMULATIVE[pattern]).sum(axis=1)
    bounds = radices(vocabulary)
    kind = np.where(target == CATEGORY, _other_kind(query.kind, keys, vocabulary), query.kind)
    is_accessory = np.where(target == ACCESSORY, 1 - query.is_accessory, query.is_accessory)

    share = np.where((target == STRONG) | (target == ATTRIBUTE) | (target == MODEL), 1.0, 0.8)
    attribute_share = np.where(target == STRONG, 1.0, 0.7)
    keep_shares = (np.where(target == CATEGORY, 0.6, share), share, attribute_share, attribute_share, attribute_share)
    values = {}
    for i, (name, keep_share) in enumerate(zip(ASKABLE, keep_shares, strict=True)):
        asked, bound = getattr(query, name), bounds[name]
        drawn = draws.integers(keys, 23 + i, bound)
        other = (asked + 1 + draws.integers(keys, 33 + i, bound - 1)) % bound
        is_kept = draws.uniform(keys, 43 + i) < keep_share
        value = np.where(target == _MISMATCH_OF[name], other, np.where(is_kept, asked, drawn))
        values[name] = np.where(asked == ANY, drawn, value)
    return Facts(query.locale, is_accessory, kind, **values)


def gold_labels(query: Facts, item: Facts) -> Ints:
    """The true class [N] of each pair, by what is asked; the first mismatch of this order decides:

    accessory, category, brand, model, attribute. The order is ours: the paper names the classes, not their precedence.
    Whoever gets the wrong role or kind of product does not look at the brand any more.
    """
    is_other_brand = (query.brand != ANY) & (query.brand != item.brand)
    is_other_model = (query.model != ANY) & (query.model != item.model)
    is_other_attribute = np.zeros(len(query), dtype=bool)
    for name in ("color", "measure", "use"):
        asked = getattr(query, name)
        is_other_attribute |= (asked != ANY) & (asked != getattr(item, name))
    conditions = [query.is_accessory != item.is_accessory, query.kind != item.kind, is_other_brand, is_other_model,
                  is_other_attribute]  # fmt: skip
    return np.select(conditions, [ACCESSORY, CATEGORY, BRAND, MODEL, ATTRIBUTE], STRONG)


def _other_kind(kind: Ints, keys: Keys, vocabulary: Vocabulary) -> Ints:
    """Another kind of product: half of the time one of the same department, which is the harder mismatch."""
    num_kinds = len(vocabulary.kinds)
    siblings = [[k for k in range(num_kinds) if vocabulary.department_K[k] == d] for d in vocabulary.department_K]
    others = np.array([[s for s in siblings[k] if s != k] for k in range(num_kinds)])
    near = others[kind, draws.integers(keys, 50, others.shape[1])]
    far = (kind + 1 + draws.integers(keys, 51, num_kinds - 1)) % num_kinds
    return np.where(draws.uniform(keys, 52) < 0.5, near, far)
