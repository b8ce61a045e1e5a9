from collections import defaultdict

import numpy as np
import pytest

from raylib.market import draws, texts
from raylib.market.search_logs import Market
from raylib.market.traces import draw_pairs
from raylib.market.vocabulary import ABSENT

LOCALES = ("en", "es", "ja", "ko", "pt", "fr")
MARKET = Market(seed=5, num_queries=5_000, num_items=1, locales=LOCALES, gold_share=1.0)
VOCABULARY = MARKET.vocabulary


@pytest.fixture(scope="module")
def pairs():
    return draw_pairs(MARKET, 4_000, np.random.default_rng(1))


@pytest.fixture
def without_typos(monkeypatch):
    monkeypatch.setattr(texts, "TYPO_SHARE", 0.0)


def spoken(*ids):
    return [VOCABULARY.word(int(word)) for word in ids]


@pytest.mark.usefixtures("without_typos")
def test_every_fact_of_an_item_can_be_read():
    pairs = draw_pairs(MARKET, 3_000, np.random.default_rng(1))
    for row in range(3_000):
        _, item = pairs.facts(row)
        seen = {name: pairs.columns[name][row] or "" for name in ("title", "brand", "attributes")}
        everywhere = " ".join(seen.values())
        locale, kind = item["locale"], item["kind"]
        noun = VOCABULARY.accessory_LK if item["is_accessory"] else VOCABULARY.kind_LK
        needed = spoken(
            noun[locale, kind],
            VOCABULARY.brand_B[item["brand"]],
            VOCABULARY.model_BKM[item["brand"], kind, item["model"]],
            VOCABULARY.color_LC[locale, item["color"]],
        )
        if not item["is_accessory"]:
            values = VOCABULARY.measure_FVU[VOCABULARY.measure_K[kind], item["measure"]]
            assert any(value in everywhere for value in spoken(*values)), (everywhere, spoken(*values))
            assert VOCABULARY.word(item["measure_word"]) in everywhere
            phrase, pair = spoken(VOCABULARY.use_LU[locale, item["use"]], VOCABULARY.use_pair_LU[locale, item["use"]])
            assert phrase in seen["title"] or pair in seen["attributes"]
        else:
            assert item["measure_word"] == ABSENT
        assert all(word in everywhere for word in needed), (everywhere, needed)


def test_a_query_text_always_asks_for_the_same(pairs):
    asked = defaultdict(set)
    for row, text in enumerate(pairs.columns["query"]):
        query, _ = pairs.facts(row)
        del query["measure_word"]
        asked[pairs.columns["locale"][row], text].add(tuple(query.items()))
    assert all(len(facts) == 1 for facts in asked.values())


def test_texts_are_short_and_as_untidy_as_planned(pairs):
    titles = pairs.columns["title"]
    assert max(len(title.split()) for title in titles) <= 20
    assert min(len(query.split()) for query in pairs.columns["query"]) >= 1
    starts = {title.split()[0] for title in titles if title.isascii()}
    assert len(starts) > 40  # word order varies: brands, kinds, noise, colors and measures come first
    words = VOCABULARY.words.to_pylist()
    misspelt = set(words[VOCABULARY.num_words :]) - set(words[: VOCABULARY.num_words])
    share = np.mean([any(word in misspelt for word in title.split()) for title in titles])
    assert 0.03 < share < 0.25
    assert any("1500 ml" in title for title in titles)
    assert any("1.5 l" in title for title in titles)


def test_an_item_reads_the_same_in_any_batch():
    rng = np.random.default_rng(0)
    rank = rng.integers(0, 5_000, 200)
    asked, pattern = MARKET.queries(rank)
    item, code = MARKET.competitors(rank, asked, pattern, np.zeros(200, np.int64))
    keys = draws.keyed(code, 5, 1)
    whole = texts.item_texts(item, keys, VOCABULARY)
    some = np.array([7, 150, 3])
    part = texts.item_texts(item.take(some), keys[some], VOCABULARY)
    for name in ("title", "brand", "category", "attributes"):
        assert getattr(part, name).to_pylist() == getattr(whole, name).take(some.tolist()).to_pylist()
