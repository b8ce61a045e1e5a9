import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylib.labels import LabelSchema
from raylib.market import catalogue, draws
from raylib.market.catalogue import ANY, LABELS, Facts, decode, draw_items, draw_queries, encode, gold_labels
from raylib.market.vocabulary import Vocabulary, misspelt

VOCABULARY = Vocabulary()
ITEM = {"locale": 0, "is_accessory": 0, "kind": 3, "brand": 5, "model": 1, "color": 2, "measure": 0, "use": 1}


def facts(**changes):
    return Facts(**{name: np.array([value]) for name, value in (ITEM | changes).items()})


def drawn_pairs(count):
    rank = np.arange(count)
    weights = np.full(len(VOCABULARY.locales), 1 / len(VOCABULARY.locales))
    query, pattern = draw_queries(rank, draws.keyed(rank, 3, 0), weights, VOCABULARY)
    return query, pattern, draw_items(query, pattern, draws.keyed(rank, 3, 1), VOCABULARY)


def test_classes_stand_in_the_order_of_the_shipped_schema():
    assert LabelSchema.load("marketplace6").names == LABELS


@given(st.data())
def test_item_code_spells_out_its_facts(data):
    num_listings = data.draw(st.integers(1, 1000))
    num_codes = VOCABULARY.num_products * len(VOCABULARY.locales) * num_listings
    code = np.array([data.draw(st.integers(0, num_codes - 1))])
    assert encode(decode(code, num_listings, VOCABULARY), code % num_listings, num_listings, VOCABULARY) == code


@pytest.mark.parametrize(
    ("asked", "label"),
    [
        ({}, "Strongly Relevant"),
        ({"brand": ANY, "model": ANY, "color": ANY, "measure": ANY, "use": ANY}, "Strongly Relevant"),
        ({"use": 0}, "Attribute Mismatch"),
        ({"measure": 2}, "Attribute Mismatch"),
        ({"color": 0, "model": 2}, "Model Mismatch"),
        ({"color": 0, "model": 2, "brand": 4}, "Brand Mismatch"),
        ({"color": 0, "model": 2, "brand": 4, "kind": 1}, "Category Mismatch"),
        ({"color": 0, "model": 2, "brand": 4, "kind": 1, "is_accessory": 1}, "Accessory Mismatch"),
        ({"is_accessory": 1}, "Accessory Mismatch"),
    ],
)
def test_first_mismatch_in_order_of_precedence_decides(asked, label):
    assert LABELS[gold_labels(facts(**asked), facts())[0]] == label


def test_no_item_misses_what_nobody_asked_for():
    query, _, item = drawn_pairs(20_000)
    label = gold_labels(query, item)
    assert not (label[query.brand == ANY] == catalogue.BRAND).any()
    assert not (label[query.model == ANY] == catalogue.MODEL).any()
    has_attribute = (query.color != ANY) | (query.measure != ANY) | (query.use != ANY)
    assert not (label[~has_attribute] == catalogue.ATTRIBUTE).any()


def test_built_items_have_the_class_that_was_drawn_for_them():
    query, pattern, item = drawn_pairs(20_000)
    label = gold_labels(query, item)
    for number in range(len(catalogue.PATTERNS)):
        weights = np.array(catalogue.PATTERNS[number].weights)
        seen = np.bincount(label[pattern == number], minlength=6) / (pattern == number).sum()
        np.testing.assert_allclose(seen, weights / weights.sum(), atol=0.05)


def test_every_locale_has_every_word():
    for table in (VOCABULARY.kind_LK, VOCABULARY.accessory_LK, VOCABULARY.color_LC, VOCABULARY.use_LU):
        assert all(len(set(row)) == len(row) for row in table.tolist())  # no two concepts share a word in a locale
    assert VOCABULARY.kind_LK.shape == VOCABULARY.accessory_LK.shape == (6, 12)
    models = VOCABULARY.model_name_BKM.reshape(-1, 3).tolist()
    assert all(len(set(line)) == 3 for line in models)


@pytest.mark.parametrize(("word", "expected"), [("camera", "caemra"), ("kettle", "ketle"), ("lamp", "lamp"),
                                                ("スニーカー", "スニーカー"), ("1500 ml", "1500 ml")])  # fmt: skip
def test_typing_errors_spare_short_words_numbers_and_other_scripts(word, expected):
    assert misspelt(word) == expected
