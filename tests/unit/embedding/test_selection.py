import pyarrow as pa

from raylib import tables
from raylib.embedding.selection import select_rationales


def row(pair_id, **changes):
    base = {
        "bucket": 0,
        "perspective": "unified",
        "sample": 0,
        "rationale": "same brand",
        "label": "Exact",
        "error": None,
    }
    counts = {"finish_reason": "stop", "prompt_tokens": 1, "generated_tokens": 1, "fingerprint": "f"}
    return {"pair_id": pair_id, **base, **counts, **changes}


def test_every_row_is_kept_or_skipped_for_the_first_reason_that_holds():
    rows = [
        row("keep"),
        row("keep, no label"),
        row("a", perspective="user_intent", error="no_label"),
        row("b", sample=1, rationale=""),
        row("c", error="no_label", label=None, rationale=""),
        row("d", rationale=" \n\t"),
        row("e", rationale=""),
    ]
    kept, skipped = select_rationales(pa.Table.from_pylist(rows, tables.RATIONALES), ["unified"])
    assert kept["pair_id"].to_pylist() == ["keep", "keep, no label"]
    counted = {"other_perspective": 1, "other_sample": 1, "error": 1, "empty_rationale": 2}
    assert skipped == {**counted, "incomplete": 0, "joined": 0}


def test_empty_table_has_a_count_for_every_reason():
    kept, skipped = select_rationales(tables.RATIONALES.empty_table(), ["unified"])
    assert kept.num_rows == 0
    assert set(skipped.values()) == {0}


def test_perspectives_of_a_pair_become_one_text_with_the_label_of_most():
    rows = [
        row("a", perspective="rule", rationale="r", label="Partial"),
        row("a", perspective="intent", rationale="i", label="Exact"),
        row("a", perspective="structure", rationale="s", label="Partial"),
        row("a", perspective="unified", rationale="u"),
        row("b", perspective="intent", rationale="i"),
        row("b", perspective="structure", rationale=" "),
        row("b", perspective="rule", rationale="r"),
    ]
    order = ["intent", "structure", "rule"]
    kept, skipped = select_rationales(pa.Table.from_pylist(rows, tables.RATIONALES), order)
    assert kept.to_pylist() == [
        {"pair_id": "a", "perspective": "intent+structure+rule", "rationale": "i\n\ns\n\nr", "label": "Partial"}
    ]
    assert {name: count for name, count in skipped.items() if count} == {
        "other_perspective": 1,
        "empty_rationale": 1,
        "incomplete": 2,
        "joined": 2,
    }
    assert sum(skipped.values()) + kept.num_rows == len(rows)
