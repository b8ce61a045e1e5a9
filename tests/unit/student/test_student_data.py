import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylib.student.data import PairTokenizer, budget_batches, epoch_batches, item_text
from raylib.student.judged import JudgedPairs


def ids(pairs, row):
    return pairs.tokens_T[pairs.starts_N1[row] : pairs.starts_N1[row + 1]].tolist()


@pytest.mark.parametrize("max_length", [8, 10, 16])
def test_equals_the_tokenizer_with_item_truncation(tokenizer, max_length):
    queries = ["red shoe", "blue", "red shoe"]
    items = ["acme red shoe big lace case phone", "", "zeta boot"]
    ours = PairTokenizer(tokenizer, max_length).encode(queries, items)
    theirs = tokenizer(queries, items, truncation="only_second", max_length=max_length)["input_ids"]
    assert [ids(ours, row) for row in range(3)] == theirs


def test_query_is_cut_only_when_no_item_is_left(tokenizer):
    pairs = PairTokenizer(tokenizer, 8).encode(["red blue green shoe boot lace phone"], ["acme"])
    words = tokenizer.convert_ids_to_tokens(ids(pairs, 0))
    assert words == ["[CLS]", "red", "blue", "green", "shoe", "boot", "[SEP]", "[SEP]"]


def test_collate_pads_masks_and_segments_like_the_tokenizer(tokenizer):
    queries, items = ["red shoe", "blue"], ["acme red shoe", "zeta"]
    pair_tokenizer = PairTokenizer(tokenizer, 16)
    ours = pair_tokenizer.collate(pair_tokenizer.encode(queries, items), np.array([1, 0]))
    theirs = tokenizer(queries[::-1], items[::-1], padding=True, return_tensors="pt")
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.tolist() == theirs[name].tolist(), name


def test_take_is_the_same_pairs_in_another_order(tokenizer):
    pairs = PairTokenizer(tokenizer, 16).encode(["red", "blue big", "green"], ["shoe", "boot", "lace case phone"])
    taken = pairs.take(np.array([2, 0]))
    assert [ids(taken, 0), ids(taken, 1)] == [ids(pairs, 2), ids(pairs, 0)]
    assert taken.item_start_N.tolist() == [3, 3]


def test_item_text_joins_present_fields():
    pair = {"title": "red shoe ", "brand": None, "category": " ", "attributes": "size=42"}
    assert item_text(pair, ("title", "brand", "category", "attributes")) == "red shoe | size=42"
    assert item_text(pair, ("brand",)) == ""


lengths = st.lists(st.integers(3, 128), min_size=1, max_size=300).map(np.array)


@given(lengths, st.integers(1, 40), st.integers(0, 3))
def test_epoch_has_every_pair_once(lengths_N, batch_size, epoch):
    batches = epoch_batches(lengths_N, batch_size, seed=7, epoch=epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths_N)))
    assert max(map(len, batches)) <= batch_size
    assert [b.tolist() for b in batches] == [b.tolist() for b in epoch_batches(lengths_N, batch_size, 7, epoch)]


def test_epochs_differ_and_batches_hold_similar_lengths():
    lengths_N = np.random.default_rng(0).integers(5, 129, 4000)
    first, second = (epoch_batches(lengths_N, 32, seed=7, epoch=epoch) for epoch in (0, 1))
    assert [b.tolist() for b in first] != [b.tolist() for b in second]
    padded = sum(len(b) * lengths_N[b].max() for b in first)
    assert padded < 1.05 * lengths_N.sum()  # random batches would pad to almost twice the tokens


@given(lengths, st.integers(1, 2000))
def test_budget_holds_and_every_pair_is_scored_once(lengths_N, budget):
    batches = list(budget_batches(lengths_N, budget))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths_N)))
    assert all(len(b) == 1 or len(b) * lengths_N[b].max() <= budget for b in batches)


@pytest.mark.parametrize(("num_pairs", "embedding_size"), [(5, 3), (4, 0), (0, 0)])
def test_stored_pairs_come_back(make_judged, tmp_path, num_pairs, embedding_size):
    judged = make_judged(max(num_pairs, 1), embedding_size)
    if not num_pairs:  # an empty split
        empty = judged.pairs.take(np.array([], np.int64))
        judged = JudgedPairs(
            empty.tokens_T,
            empty.starts_N1,
            empty.item_start_N,
            *(
                getattr(judged, name)[:0]
                for name in ("pair_id_N", "gold_N", "target_NKE", "is_guided_NK", "teacher_prob_NC")
            ),
            judged.rationale_T[:0],
            empty.starts_N1,
            judged.tags_T[:0],
        )
    judged.save(tmp_path)
    loaded = JudgedPairs.load(tmp_path)
    for name, value in vars(judged).items():
        np.testing.assert_array_equal(getattr(loaded, name), value)
        assert getattr(loaded, name).shape == value.shape


def test_a_special_token_in_a_title_is_text(tokenizer):
    pair_tokenizer = PairTokenizer(tokenizer, 24)
    found = ids(pair_tokenizer.encode(["red shoe"], ["blue [SEP] boot [CLS]"]), 0)
    assert found.count(tokenizer.sep_token_id) == 2
    assert found.count(tokenizer.cls_token_id) == 1
