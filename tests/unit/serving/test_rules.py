import pytest

from raylib.errors import ConfigError
from raylib.serving.rules import Applied, Rule, Rules, load_rules

THRESHOLDS = (0.2, 0.4, 0.6, 0.8)


def rules(*contents):
    return Rules([Rule.model_validate({"name": f"rule {n}", **one}) for n, one in enumerate(contents)], THRESHOLDS)


def test_rules_apply_in_order_to_the_items_that_meet_all_conditions():
    boost = {"when": {"brand": ["acme"]}, "score_times": 1.5}
    cap = {"when": {"brand": ["ACME"], "category": ["shoes"]}, "max_tier": 2}
    applied = rules(boost, cap).apply({"brand": "Acme", "category": "Shoes > running"}, "en", 0.5, 2)
    assert applied == [Applied("rule 0", 0.75, 3), Applied("rule 1", 0.75, 2)]
    assert rules(cap, boost).apply({"brand": "acme", "category": "shoes"}, "en", 0.5, 2)[-1].tier == 3
    assert rules(cap).apply({"brand": "acme", "category": "shoelaces"}, "en", 0.5, 2) == []
    assert rules(boost).apply({"brand": None}, "en", 0.5, 2) == []


def test_scores_stay_probabilities_and_tiers_in_their_bounds():
    assert rules({"when": {"locale": ["en"]}, "score_times": 10.0}).apply({}, "EN", 0.5, 2) == [
        Applied("rule 0", 1.0, 4)
    ]
    assert rules({"when": {"locale": ["en"]}, "min_tier": 3}).apply({}, "en", 0.1, 0) == [Applied("rule 0", 0.1, 3)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("- {name: a, when: {brand: [x]}}", "score_times, min_tier or max_tier"),
        ("- {name: a, when: {}, max_tier: 1}", "brand, category or locale"),
        ("- {name: a, when: {brand: [x]}, max_tier: 7}", "max_tier"),
        ("- {name: a, when: {brand: [x]}, max_tier: 1, min_tier: 2}", "above max_tier"),
        ("- {name: a, when: {colour: [x]}, max_tier: 1}", "colour"),
        ("[{name: a, when: {brand: [x]}, max_tier: 1}, {name: a, when: {brand: [y]}, max_tier: 1}]", "called a"),
        ("name: a", "list"),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_wrong(tmp_path, content, said):
    (tmp_path / "rules.yaml").write_text(content)
    with pytest.raises(ConfigError, match=said):
        load_rules(str(tmp_path / "rules.yaml"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        load_rules(str(tmp_path / "nowhere.yaml"))
