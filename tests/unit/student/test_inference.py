import copy

import numpy as np
import pytest

from raylib.errors import InputError
from raylib.labels import LabelSchema
from raylib.student.artifact import save_student
from raylib.student.inference import Scorer, score_rows

PAIRS = [
    {"query": "red shoe", "title": "acme red shoe big lace case phone boot", "brand": "zeta"},
    {"query": "blue", "title": "boot", "brand": None},
    {"query": "phone case", "title": "green phone case small"},
    {"query": "red shoe", "title": "lace", "brand": ""},
] * 5


@pytest.fixture(params=["none", "mlp", "poly", "gat"])
def scorer(request, make_student, tokenizer, tmp_path):
    save_student(make_student(request.param), tokenizer, tmp_path / "model")
    return Scorer(tmp_path / "model", device="cpu")


def test_order_and_batches_do_not_matter(scorer):
    alone = np.concatenate([scorer.score([pair]) for pair in PAIRS])
    assert len(np.unique(alone.round(4), axis=0)) == 4
    for budget in (1, 30, 10_000):
        np.testing.assert_allclose(scorer.score(PAIRS, token_budget=budget), alone, atol=2e-6)
    np.testing.assert_allclose(scorer.score(PAIRS[::-1])[::-1], alone, atol=2e-6)


def test_probabilities_sum_to_one_and_empty_input_is_fine(scorer):
    assert scorer.score(PAIRS).sum(1) == pytest.approx(np.ones(len(PAIRS)), abs=1e-6)
    assert scorer.score([]).shape == (0, 3)


def test_brand_is_part_of_the_item(scorer):
    with_brand, without = scorer.score([{"query": "red", "title": "shoe", "brand": b} for b in ("acme", None)])
    assert not np.allclose(with_brand, without, atol=1e-5)


def test_bfloat16_stays_close(make_student, tokenizer, tmp_path):
    save_student(make_student(), tokenizer, tmp_path / "model")
    full, half = (Scorer(tmp_path / "model", dtype, "cpu").score(PAIRS) for dtype in ("float32", "bfloat16"))
    np.testing.assert_allclose(half, full, atol=0.02)
    with pytest.raises(ValueError, match="fp8"):
        Scorer(tmp_path / "model", "fp8")


def test_rows_hold_best_class_expected_gain_and_tier():
    schema = LabelSchema.load("esci")
    probs = np.array([[0.6, 0.2, 0.1, 0.1], [0.0, 0.1, 0.2, 0.7]], np.float32)
    first, second = score_rows(["a", "b"], probs, schema)
    assert (first["pair_id"], first["label"], first["tier"]) == ("a", "Exact", 3)
    assert first["score"] == pytest.approx(0.6 + 0.02 + 0.001)
    assert (second["label"], second["tier"]) == ("Irrelevant", 0)
    assert second["score"] == pytest.approx(0.012)


def test_a_tokenizer_of_another_model_is_refused(make_student, tokenizer, tmp_path):
    save_student(make_student(), tokenizer, tmp_path / "model")
    other = copy.deepcopy(tokenizer)
    other.add_tokens([f"word{n}" for n in range(5)])
    other.save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match=r"model: the tokenizer has 21 tokens, the encoder embeds 16"):
        Scorer(tmp_path / "model", device="cpu")


def test_probabilities_are_those_of_the_temperature(make_student, tokenizer, tmp_path):
    student = make_student()
    probs = []
    for temperature in (1.0, 2.0):
        student.spec = student.spec.model_copy(update={"temperature": temperature})
        save_student(student, tokenizer, tmp_path / "model")
        probs.append(Scorer(tmp_path / "model", device="cpu").score(PAIRS))
    sharper = probs[1] ** 2
    np.testing.assert_allclose(probs[0], sharper / sharper.sum(1, keepdims=True), atol=1e-6)
