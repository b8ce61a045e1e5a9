import numpy as np
import pyarrow.parquet as pq
import pytest

from raylib.labels import LabelSchema
from raylib.market.catalogue import LABELS
from raylib.market.search_logs import Market, write_logs
from raylib.market.traces import PERSPECTIVES, TRACES, compare, draw_guesses, draw_pairs, reason, write_corpus

LOCALES = ("en", "es", "ja", "ko", "pt", "fr")
MARKET = Market(seed=5, num_queries=20_000, num_items=1, locales=LOCALES, gold_share=1.0)
NUM_PAIRS = 3_000


@pytest.fixture(scope="module")
def pairs():
    return draw_pairs(MARKET, NUM_PAIRS, np.random.default_rng(1))


@pytest.fixture(scope="module")
def is_right(pairs):
    """[perspective, sample, pair]: whether that answer is right."""
    generator = np.random.default_rng(2)
    is_right = np.zeros((len(PERSPECTIVES), 3, NUM_PAIRS), dtype=bool)
    for p, name in enumerate(PERSPECTIVES):
        lines = [compare(name, *pairs.facts(row), MARKET.vocabulary) for row in range(NUM_PAIRS)]
        for sample in range(3):
            guesses = draw_guesses(name, NUM_PAIRS, generator)
            verdicts = [reason(name, line, int(guess))[1] for line, guess in zip(lines, guesses, strict=True)]
            is_right[p, sample] = np.array(verdicts) == pairs.gold
    return is_right


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus")
    write_corpus(MARKET, str(path), 2_000)
    return pq.read_table(path)


def test_each_perspective_alone_is_half_right_and_together_they_nearly_know(is_right):
    single = is_right.mean(axis=(1, 2))
    three_tries = is_right.any(axis=1).mean(axis=1)
    oracle = is_right[:, 0].any(axis=0).mean()
    assert ((single > 0.5) & (single < 0.7)).all(), single
    assert (three_tries > single + 0.05).all()  # guesses differ from sample to sample
    assert oracle > three_tries.max() + 0.1


def test_perspectives_err_on_different_classes(is_right, pairs):
    recall_PC = np.array([[is_right[p, 0, pairs.gold == c].mean() for c in range(6)] for p in range(3)])
    user, structured, business = recall_PC
    category, model, attribute, accessory = (
        LABELS.index(f"{n} Mismatch") for n in ("Category", "Model", "Attribute", "Accessory")
    )
    assert user[category] > business[category] > structured[category]
    assert structured[model] > 0.9 > 0.3 > max(user[model], business[model])
    assert structured[attribute] > user[attribute] > business[attribute]
    assert min(user[accessory], business[accessory]) > 0.9 > 0.3 > structured[accessory]


@pytest.mark.parametrize(
    ("perspective", "hidden"),
    [
        ("user_intent", ("brand", "model", "color", "measure", "measure_word")),
        ("structured_analysis", ("is_accessory", "use", "measure")),
        ("business_rule", ("model", "color", "measure", "measure_word", "use")),
    ],
)
def test_a_perspective_does_not_see_what_is_hidden_from_it(pairs, perspective, hidden):
    for row in range(300):
        query, item = pairs.facts(row)
        changed = item | {name: 1 - item[name] if name == "is_accessory" else 0 for name in hidden}
        assert compare(perspective, query, item, MARKET.vocabulary) == compare(
            perspective, query, changed, MARKET.vocabulary
        )


def test_other_units_look_different_to_the_structured_perspective():
    words = MARKET.vocabulary.measure_FVU[MARKET.vocabulary.measures.index("capacity"), 1]
    facts = {"locale": 0, "is_accessory": 0, "kind": 3, "brand": 1, "model": 0, "color": 0, "measure": 1, "use": 0}
    lines = compare(
        "structured_analysis",
        facts | {"measure_word": int(words[0])},
        facts | {"measure_word": int(words[1])},
        MARKET.vocabulary,
    )
    assert [(line.asked, line.found) for line in lines if line.is_different] == [("1.5 l", "1500 ml")]


def test_rationales_are_short_english_and_conclude(corpus):
    rows = corpus.to_pylist()
    lengths = [len(row["rationale"].split()) for row in rows]
    assert 20 <= min(lengths) <= max(lengths) <= 45
    assert all(row["rationale"].isascii() for row in rows)
    assert all(
        row["rationale"].endswith(("decides against the item.", "full match.", "likely differs.")) for row in rows
    )


def test_labels_are_of_the_schema_that_a_trace_names(corpus):
    assert corpus.schema == TRACES
    rows = corpus.to_pylist()
    for name in ("marketplace6", "esci"):
        labels = {row["label"] for row in rows if row["schema"] == name}
        assert labels == set(LabelSchema.load(name).names)
    assert abs(np.mean([row["schema"] == "esci" for row in rows]) - 0.15) < 0.03
    assert {row["perspective"] for row in rows} == set(PERSPECTIVES)


def test_corpus_repeats_by_seed(tmp_path, corpus):
    write_corpus(MARKET, str(tmp_path), 2_000)
    assert pq.read_table(tmp_path).equals(corpus)


def test_the_corpus_of_another_seed_holds_other_pairs(tmp_path, corpus):
    write_logs(Market(6, 300, 1, LOCALES, 1.0), str(tmp_path), 20_000, 20_000)
    logged = {(row["query"], row["title"]) for row in pq.read_table(tmp_path, columns=["query", "title"]).to_pylist()}
    traced = {(row["query"], row["title"]) for row in corpus.to_pylist()}
    assert not logged & traced
