"""The corpus from which a small base model learns to reason: traces of perspectives that see a part of the truth.

user_intent sees the role, the kind and the use of the product; structured_analysis sees brand, model, color and measure
(and compares measures as written, so it takes 1500 ml for something else than 1.5 l); business_rule sees the role, the
department and the brand. Where nothing in view differs the decisive fact may be out of view: then a perspective mostly
assumes a full match and sometimes guesses, so repeated samples differ. What each sees is our choice, made so that the
perspectives err differently, as the pilot of arXiv 2601.21611 found for a large model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from raylib import tables
from raylib.market import draws
from raylib.market.catalogue import (
    ACCESSORY,
    ANY,
    ATTRIBUTE,
    BRAND,
    CATEGORY,
    LABELS,
    MODEL,
    STRONG,
    Facts,
    gold_labels,
)  # fmt: skip
from raylib.market.draws import Ints
from raylib.market.search_logs import ITEM, NUM_COMPETITORS, QUERY, Market
from raylib.market.texts import item_texts, query_texts
from raylib.market.vocabulary import ABSENT, Vocabulary

TRACES = pa.schema(
    [
        pa.field("schema", pa.string(), nullable=False),
        pa.field("perspective", pa.string(), nullable=False),
        pa.field("query", pa.string(), nullable=False),
        pa.field("locale", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("brand", pa.string()),
        pa.field("category", pa.string()),
        pa.field("attributes", pa.string()),
        pa.field("rationale", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
    ]
)
PERSPECTIVES = ("user_intent", "structured_analysis", "business_rule")
ESCI_SHARE = 0.15  # of the traces; the rest are marketplace6
ESCI_LABELS = ("Exact", "Substitute", "Irrelevant", "Substitute", "Substitute", "Complement")  # in class order
TRACES_PER_FILE = 20_000
# What a perspective says when all it sees agrees: {class: probability}
GUESSES = {
    "user_intent": {STRONG: 0.70, BRAND: 0.10, MODEL: 0.10, ATTRIBUTE: 0.10},
    "structured_analysis": {STRONG: 0.76, CATEGORY: 0.12, ACCESSORY: 0.12},
    "business_rule": {STRONG: 0.70, MODEL: 0.16, ATTRIBUTE: 0.14},
}
_GUESS_TEXT = {
    STRONG: "nothing in view differs. likely a full match.",
    BRAND: "nothing in view differs. the brand is out of view and likely differs.",
    CATEGORY: "nothing in view differs. the kind is out of view and likely differs.",
    MODEL: "nothing in view differs. the model is out of view and likely differs.",
    ATTRIBUTE: "nothing in view differs. some attribute is out of view and likely differs.",
    ACCESSORY: "nothing in view differs. the role is out of view and likely differs.",
}


@dataclass(frozen=True)
class Comparison:
    """One line of a rationale: what is asked, what the item has, and the class if they differ. None = not asked."""

    name: str
    asked: str | None
    found: str
    verdict: int

    @property
    def is_different(self) -> bool:
        """Whether the item contradicts the query."""
        return self.asked is not None and self.asked != self.found


def compare(perspective: str, query: dict[str, int], item: dict[str, int], vocabulary: Vocabulary) -> list[Comparison]:
    """The comparisons that a perspective can make, in its order.

    `query` and `item` hold one pair's Facts as ints, and `measure_word`, the id of the measure as it is written.
    """

    def named(name: str, words: Sequence[str], verdict: int) -> Comparison:
        return Comparison(name, None if query[name] == ANY else words[query[name]], words[item[name]], verdict)

    def model_of(facts: dict[str, int]) -> str | None:
        if facts["model"] == ANY:
            return None
        return vocabulary.models[int(vocabulary.model_name_BKM[facts["brand"], facts["kind"], facts["model"]])]

    role = named("is_accessory", ("main product", "accessory"), ACCESSORY)
    role = replace(role, name="role")
    brand = named("brand", vocabulary.brands, BRAND)
    if perspective == "user_intent":
        use = named("use", vocabulary.uses, ATTRIBUTE)
        if item["is_accessory"]:  # accessories are not sold by use
            use = replace(use, found="none")
        return [role, named("kind", vocabulary.kinds, CATEGORY), use]
    if perspective == "structured_analysis":
        asked, found = query["measure_word"], item["measure_word"]
        measure = Comparison(
            "measure",
            None if asked == ABSENT else vocabulary.word(asked),
            "none" if found == ABSENT else vocabulary.word(found),
            ATTRIBUTE,
        )
        model = Comparison("model", model_of(query), str(model_of(item)), MODEL)
        return [brand, model, named("color", vocabulary.colors, ATTRIBUTE), measure]
    department = {"asked": vocabulary.department_K[query["kind"]], "found": vocabulary.department_K[item["kind"]]}
    names = {key: vocabulary.departments[value] for key, value in department.items()}
    return [role, Comparison("department", names["asked"], names["found"], CATEGORY), brand]


def reason(perspective: str, comparisons: Sequence[Comparison], guess: int) -> tuple[str, int]:
    """The rationale and the class; `guess` is the class to claim when nothing in view differs."""
    lines = []
    for line in comparisons:
        if line.asked is None:
            lines.append(f"{line.name} not asked, item {line.found}.")
        else:
            outcome = "different" if line.is_different else "same"
            lines.append(f"{line.name} asked {line.asked}, item {line.found}, {outcome}.")
    decisive = next((line for line in comparisons if line.is_different), None)
    lines.append(f"the {decisive.name} decides against the item." if decisive else _GUESS_TEXT[guess])
    verdict = decisive.verdict if decisive else guess
    opening = {
        "user_intent": "what the shopper needs:",
        "structured_analysis": "fact by fact:",
        "business_rule": "rules:",
    }
    return " ".join([opening[perspective], *lines]), verdict


def draw_guesses(perspective: str, count: int, generator: np.random.Generator) -> Ints:
    """Classes [count] that a perspective claims when nothing in view differs."""
    table = GUESSES[perspective]
    return generator.choice(list(table), size=count, p=list(table.values()))


@dataclass(frozen=True)
class Pairs:
    """N pairs of the market with their texts and truth."""

    query: Facts
    item: Facts
    gold: Ints
    columns: dict[str, list[Any]]
    query_measure: Ints
    item_measure: Ints

    def facts(self, row: int) -> tuple[dict[str, int], dict[str, int]]:
        """One pair's facts, as `compare` takes them."""
        query = {name: int(values[row]) for name, values in vars(self.query).items()}
        item = {name: int(values[row]) for name, values in vars(self.item).items()}
        query["measure_word"], item["measure_word"] = int(self.query_measure[row]), int(self.item_measure[row])
        return query, item


def draw_pairs(market: Market, count: int, generator: np.random.Generator) -> Pairs:
    """Pairs [count] of the market, every query as likely as any other."""
    vocabulary = market.vocabulary
    rank = generator.integers(0, market.num_queries, count)
    asked, pattern = market.queries(rank)
    item, code = market.competitors(rank, asked, pattern, generator.integers(0, NUM_COMPETITORS, count))
    query_text, query_measure = query_texts(asked, draws.keyed(rank, market.seed, QUERY), vocabulary)
    texts = item_texts(item, draws.keyed(code, market.seed, ITEM), vocabulary)
    columns = {
        "query": query_text.to_pylist(),
        "locale": [vocabulary.locales[i] for i in asked.locale],
        "title": texts.title.to_pylist(),
        "brand": texts.brand.to_pylist(),
        "category": texts.category.to_pylist(),
        "attributes": texts.attributes.to_pylist(),
    }
    return Pairs(asked, item, gold_labels(asked, item), columns, query_measure, texts.measure)


def write_corpus(market: Market, uri: str, num_traces: int) -> int:
    """Write `num_traces` traces as `traces-*.parquet` below `uri`, one pair a trace; returns the number of files.

    Pass a market whose seed is not that of the logs: its queries, items and pairs are then other ones.
    """
    num_files = -(-num_traces // TRACES_PER_FILE)
    for file in range(num_files):
        rows = min(TRACES_PER_FILE, num_traces - file * TRACES_PER_FILE)
        generator = np.random.default_rng([market.seed, 7, file])
        batch = tables.rows_batch(list(_traces(market, rows, generator)), TRACES)
        tables.write_parquet(f"{uri}/traces-{file:05d}.parquet", TRACES, [batch])
    return num_files


def _traces(market: Market, count: int, generator: np.random.Generator) -> Iterator[dict[str, Any]]:
    pairs = draw_pairs(market, count, generator)
    perspective_of = generator.integers(0, len(PERSPECTIVES), count)
    guesses = {name: draw_guesses(name, count, generator) for name in PERSPECTIVES}
    is_esci = generator.random(count) < ESCI_SHARE
    for row in range(count):
        perspective = PERSPECTIVES[perspective_of[row]]
        query, item = pairs.facts(row)
        comparisons = compare(perspective, query, item, market.vocabulary)
        rationale, verdict = reason(perspective, comparisons, int(guesses[perspective][row]))
        yield {
            "schema": "esci" if is_esci[row] else "marketplace6",
            "perspective": perspective,
            **{name: values[row] for name, values in pairs.columns.items()},
            "rationale": rationale,
            "label": (ESCI_LABELS if is_esci[row] else LABELS)[verdict],
        }
