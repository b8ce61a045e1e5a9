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
    kept, skipped = select_rationales(pa.Table.from_pylist(rows, tables.RATIONALES), "unified")
    assert kept["pair_id"].to_pylist() == ["keep", "keep, no label"]
    assert skipped == {"other_perspective": 1, "other_sample": 1, "error": 1, "empty_rationale": 2}


def test_empty_table_has_a_count_for_every_reason():
    kept, skipped = select_rationales(tables.RATIONALES.empty_table(), "unified")
    assert kept.num_rows == 0
    assert set(skipped.values()) == {0}
