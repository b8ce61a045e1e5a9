from typing import Any

from raylib.curation.consistency import completion, consistent_answers


def answer(
    perspective: str, sample: int, rationale: str, label: str | None, error: str | None = None
) -> dict[str, Any]:
    return {"perspective": perspective, "sample": sample, "rationale": rationale, "label": label, "error": error}


def test_only_answers_with_the_gold_label_are_kept_and_each_text_once() -> None:
    rows = [
        answer("a", 0, "It fits.", "Exact"),
        answer("a", 1, "It does not.", "Irrelevant"),
        answer("a", 2, "It fi", None, "truncated"),
        answer("b", 0, "It fits. ", "Exact"),
        answer("b", 1, "All is as asked.", "Exact"),
    ]
    kept, dropped = consistent_answers(rows, "Exact")
    assert [(row["perspective"], row["sample"]) for row in kept] == [("a", 0), ("b", 1)]
    assert [(row["perspective"], row["sample"], reason) for row, reason in dropped] == [
        ("a", 1, "wrong_label"),
        ("a", 2, "truncated"),
        ("b", 0, "duplicate"),
    ]
    assert completion(kept[0]) == "It fits.\nLabel: Exact"


def test_a_wrong_answer_does_not_make_a_right_one_a_duplicate() -> None:
    rows = [answer("a", 0, "Same words.", "Irrelevant"), answer("b", 0, "Same words.", "Exact")]
    kept, _ = consistent_answers(rows, "Exact")
    assert [row["perspective"] for row in kept] == ["b"]
