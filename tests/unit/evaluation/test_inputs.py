from pathlib import Path

import numpy as np
import pytest

from raylib import tables
from raylib.errors import InputError
from raylib.evaluation.inputs import read_ensemble, read_judged
from raylib.labels import LabelSchema

ESCI = LabelSchema.load("esci")


def write(folder: Path, rows: list[dict]) -> str:
    texts = dict.fromkeys(("item_id", "title", "brand", "category", "attributes", "split"), "x")
    filled = [{"bucket": 0, "impressions": 1, "clicks": 0, **texts, **row} for row in rows]
    tables.write_parquet(f"{folder}/a.parquet", tables.PAIRS, [tables.rows_batch(filled, tables.PAIRS)])
    return str(folder)


def test_judged_pairs_carry_their_query_and_segment(tmp_path):
    facts = [("a", "en", "Exact", "tail"), ("a", "en", None, "tail"), ("b", "en", "Irrelevant", "head"),
             ("a", "es", "Exact", None), ("a", "en", "Substitute", "tail"), ("c", "en", "Exact", "torso")]  # fmt: skip
    rows = [{"pair_id": f"p{i}", "query": query, "locale": locale, "gold": gold, "segment": segment}
            for i, (query, locale, gold, segment) in enumerate(facts)]  # fmt: skip
    judged, num_rows = read_judged(write(tmp_path, rows), ESCI)
    assert (num_rows, judged.column("pair_id").tolist()) == (6, ["p0", "p2", "p3", "p4", "p5"])
    assert judged.query_N.tolist() == [0, 1, 2, 0, 3]
    assert judged.segment_N.tolist() == [2, 0, -1, 2, 1]
    assert [ESCI.names[i] for i in judged.gold_N] == ["Exact", "Irrelevant", "Exact", "Substitute", "Exact"]


def test_a_table_without_gold_is_refused(tmp_path):
    uri = write(tmp_path, [{"pair_id": "p", "query": "a", "locale": "en", "gold": None, "segment": None}])
    with pytest.raises(InputError, match="none of 1 pairs has a gold label"):
        read_judged(uri, ESCI)


def test_an_ensemble_is_the_mean_over_the_pairs_that_all_of_its_students_scored(tmp_path):
    texts = {"query": "a", "locale": "en", "gold": "Exact", "segment": None}
    judged, _ = read_judged(write(tmp_path / "pairs", [{"pair_id": f"p{i}", **texts} for i in range(3)]), ESCI)
    for name, scored in (("one", {"p0": 1.0, "p1": 1.0}), ("two", {"p1": 0.0, "p0": 0.5, "p2": 1.0})):
        rows = [
            {"pair_id": pair_id, "probs": [exact, 0.0, 0.0, 1 - exact], "label": "Exact", "score": exact, "tier": 4}
            for pair_id, exact in scored.items()
        ]
        batch = tables.rows_batch(rows, tables.SCORES)
        tables.write_parquet(f"{tmp_path}/{name}/a.parquet", tables.SCORES, [batch])
    probs_NC, is_scored_N = read_ensemble([f"{tmp_path}/one", f"{tmp_path}/two"], judged, 4)
    assert is_scored_N.tolist() == [True, True, False]
    np.testing.assert_allclose(probs_NC[:2, 0], [0.75, 0.5])
    assert read_ensemble(f"{tmp_path}/two", judged, 4)[1].all()
