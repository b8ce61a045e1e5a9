"""Hand-made cases of conflict mining (arXiv 2601.21611, eq. 4). G is the gold label, W and X are wrong ones."""

from typing import Any

import pytest

from raylib.curation.conflicts import mine_conflicts, predicted_label


def answers(**labels: str) -> list[dict[str, Any]]:
    """`a="GW."` = perspective a answered G, then W, then something that did not parse."""
    return [
        {
            "pair_id": "p1",
            "perspective": perspective,
            "sample": sample,
            "rationale": f"{perspective}{sample}",
            "label": None if label == "." else label,
        }
        for perspective, word in labels.items()
        for sample, label in enumerate(word)
    ]


def outcomes(
    rows: list[dict[str, Any]], allow_same: bool = True, seed: int = 0, may_be_chosen: list[bool] | None = None
) -> dict[str, str]:
    """Perspective -> reason, or `chosen>rejected` by their rationales."""
    found = {}
    for outcome in mine_conflicts(rows, "G", seed, allow_same, may_be_chosen or [True] * len(rows)):
        if outcome.reason:
            found[outcome.perspective] = outcome.reason
        else:
            assert outcome.chosen is not None
            assert outcome.rejected is not None
            found[outcome.perspective] = f"{rows[outcome.chosen]['rationale']}>{rows[outcome.rejected]['rationale']}"
    return found


@pytest.mark.parametrize(
    ("labels", "expected"),
    [("GWW", "W"), ("WG", "W"), ("GW", "G"), ("XWGWX", "X"), (".G.", "G"), ("...", None)],
)
def test_a_prediction_is_the_vote_and_on_a_tie_the_first(labels: str, expected: str | None) -> None:
    assert predicted_label(answers(a=labels)) == expected


def test_chosen_comes_from_another_perspective() -> None:
    found = outcomes(answers(a="GGWWW", b="WG", c="W"))
    assert found["a"].split(">")[0] == "b1"  # never a0 or a1, its own
    assert found["b"].split(">")[0] in ("a0", "a1")
    assert found["c"].split(">")[0] in ("a0", "a1", "b1")


def test_each_failing_perspective_gives_one_preference_with_its_own_mistake() -> None:
    found = outcomes(answers(a="W", b="X", c="G"))
    assert found == {"a": "c0>a0", "b": "c0>b0", "c": "no_conflict"}


def test_rejected_is_the_mistake_that_was_predicted() -> None:
    for seed in range(10):
        found = outcomes(answers(a="XWWG", b="G"), seed=seed)
        assert found["a"] in ("b0>a1", "b0>a2")  # not a0, whose X lost the vote


def test_no_right_rationale_anywhere() -> None:
    assert outcomes(answers(a="W", b="X")) == {"a": "no_right_rationale", "b": "no_right_rationale"}


def test_right_ones_of_the_failing_perspective_are_a_fallback_that_can_be_switched_off() -> None:
    rows = answers(a="WWG", b="X")
    assert outcomes(rows, allow_same=False) == {"a": "only_same_perspective", "b": "a2>b0"}
    assert outcomes(rows)["a"].split(">")[0] == "a2"


def test_all_right_is_no_conflict_and_nothing_parsed_is_no_answer() -> None:
    assert outcomes(answers(a="G", b="..")) == {"a": "no_conflict", "b": "no_answer"}


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_rows() -> None:
    rows = answers(a="WWWWW", b="GGGGG", c="GGGGG")
    assert outcomes(rows) == outcomes(rows[:5] + rows[10:] + rows[5:10])
    sources = {outcomes(rows, seed=seed)["a"].split(">")[0] for seed in range(40)}
    assert {source[0] for source in sources} == {"b", "c"}
    assert len(sources) > 5


def test_an_answer_that_may_not_be_chosen_can_be_rejected_only() -> None:
    rows = answers(a="GWW", b="G")
    assert outcomes(rows, may_be_chosen=[True, True, True, False]) == {"a": "a0>a1", "b": "no_conflict"} or outcomes(
        rows, may_be_chosen=[True, True, True, False]
    ) == {"a": "a0>a2", "b": "no_conflict"}
    assert outcomes(rows, may_be_chosen=[False] * 4) == {"a": "unsupported", "b": "no_conflict"}
    assert outcomes(rows, False, may_be_chosen=[True, True, True, False])["a"] == "only_same_perspective"
