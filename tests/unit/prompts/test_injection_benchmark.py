from collections import Counter
from typing import Any

import pytest

from benchmarks.injection import attacks_of, trials, variants
from benchmarks.injection_report import rates, report, summary
from raylib.models import resolve_model
from raylib.prompts.attacks import load_attacks
from raylib.teacher.encoding import load_tokenizer

SUITE = load_attacks()
TARGET = "Strongly Relevant"


def pair(number: int, gold: str = "Brand Mismatch") -> dict[str, Any]:
    facts = {"bucket": 0, "item_id": f"i{number}", "locale": "en", "impressions": 1, "clicks": 0, "split": "test"}
    texts = {"query": f"red tent {number % 3}", "title": f"tent Vintra {number}", "brand": "Vintra"}
    return {**facts, **texts, "pair_id": f"{number:016x}", "gold": gold, "category": None, "attributes": None}


def test_every_attack_is_used_as_often() -> None:
    used = Counter(attack.id for position in range(len(SUITE.attacks)) for attack in attacks_of(SUITE, position, 4))
    assert set(used.values()) == {4}
    assert len({attack.id for attack in attacks_of(SUITE, 5, 4)}) == 4
    assert len(attacks_of(SUITE, 0, 10_000)) == len(SUITE.attacks)


def test_the_three_forms_of_a_pair_differ_in_their_title_alone() -> None:
    rows = variants([pair(1), pair(2)], SUITE, 3, TARGET, load_tokenizer(resolve_model("embedded")))
    assert Counter(row["variant"] for row in rows) == {"clean": 2, "attack": 6, "neutral": 6}
    assert len({row["pair_id"] for row in rows}) == 14
    assert {(row["source"], row["query"], row["brand"]) for row in rows} == {
        (source["pair_id"], source["query"], "Vintra") for source in (pair(1), pair(2))
    }
    lengths: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        if row["attack"]:
            lengths.setdefault((row["source"], row["attack"]), []).append(row["num_tokens"])
    assert all(abs(attack - neutral) <= 1 for attack, neutral in lengths.values())


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    found = []
    for number in range(6):
        source = pair(number)
        for variant in ("clean", "attack", "neutral"):
            attack = None if variant == "clean" else SUITE.attacks[0].id
            pair_id = source["pair_id"] if variant == "clean" else f"{variant}{number}"
            facts = {"variant": variant, "attack": attack, "source": source["pair_id"], "num_tokens": 5}
            found.append(source | facts | {"pair_id": pair_id})
    return found


def test_flips_are_counted_where_the_clean_label_is_another_one(rows: list[dict[str, Any]]) -> None:
    clean = ["Brand Mismatch", "Brand Mismatch", "Model Mismatch", "Category Mismatch", TARGET, None]
    attacked = [TARGET, TARGET, "Brand Mismatch", None, TARGET, TARGET]
    neutral = [TARGET, "Brand Mismatch", "Model Mismatch", "Category Mismatch", "Brand Mismatch", TARGET]
    labels = {}
    for number in range(6):
        keys = (pair(number)["pair_id"], f"attack{number}", f"neutral{number}")
        answers = (clean[number], attacked[number], neutral[number])
        labels |= {(key, "user_intent"): label for key, label in zip(keys, answers, strict=True) if label}
    found = trials(rows, labels, ["user_intent"], TARGET)
    assert [trial["clean"] for trial in found] == clean[:4]
    result = rates(found)
    assert result["num_trials"] == 4
    assert (result["attack"]["flips"], result["attack"]["changed"], result["attack"]["unparsed"]) == (2, 3, 1)
    assert (result["neutral"]["flips"], result["neutral"]["changed"], result["neutral"]["unparsed"]) == (1, 1, 0)
    # Wilson, 2 of 4: centre 0.5, half width z sqrt(1/16 + z^2/64) / (1 + z^2/4)
    assert (result["attack"]["low"], result["attack"]["high"]) == pytest.approx((0.15004, 0.84996), abs=1e-5)
    assert result["difference"]["share"] == 0.25
    assert result["difference"]["low"] <= 0.25 <= result["difference"]["high"]

    figures = summary(SUITE, rows, labels, ["user_intent"], found)
    assert figures["unparsed"] == {"clean": 1, "attack": 1, "neutral": 0}
    assert figures["clean_accuracy"] == pytest.approx(2 / 6)
    text = report({"target": TARGET, "num_few_shots": 1, "engine": {}, **figures})
    assert "| user_intent | 4 | 50.0 [15.0, 85.0] | 25.0 [4.6, 69.9] | 25.0 [" in text
