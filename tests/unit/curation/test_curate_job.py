"""jobs.curate on hand-made tables: every row is accounted for, and held-out queries cannot get in."""

from pathlib import Path
from typing import Any

import pytest

from jobs.curate import CurateConfig, run
from raylib import tables
from raylib.errors import InputError

EXACT, IRRELEVANT = "Exact", "Irrelevant"


def pair(pair_id: str, gold: str | None, split: str = "train", query: str | None = None) -> dict[str, Any]:
    texts = {"query": query or f"query {pair_id}", "title": f"title {pair_id}", "item_id": pair_id, "locale": "en"}
    counts = {"bucket": 0, "impressions": 1, "clicks": 0}
    return {"pair_id": pair_id, "gold": gold, "split": split, **texts, **counts}


def answers(pair_id: str, perspective: str, *labels: str | None) -> list[dict[str, Any]]:
    return [
        {
            "pair_id": pair_id,
            "bucket": 0,
            "perspective": perspective,
            "sample": sample,
            "rationale": f"{perspective} {sample} of {pair_id}",
            "label": label,
            "error": None if label else "no_label",
            "finish_reason": "stop",
            "prompt_tokens": 1,
            "generated_tokens": 1,
            "fingerprint": "f",
        }
        for sample, label in enumerate(labels)
    ]


PAIRS = [pair("p1", EXACT), pair("p2", IRRELEVANT), pair("p3", None), pair("p4", EXACT, "test"), pair("p5", EXACT)]
ANSWERS = [
    *answers("p1", "user_intent", EXACT, IRRELEVANT, EXACT),
    *answers("p1", "business_rule", IRRELEVANT, None, IRRELEVANT),
    *answers("p2", "user_intent", EXACT, EXACT, EXACT),
    *answers("p2", "business_rule", EXACT, EXACT, EXACT),
    *answers("p3", "user_intent", EXACT, EXACT, EXACT),
    *answers("p4", "user_intent", EXACT, EXACT, EXACT),
]


def curate(tmp_path: Path, mode: str, pairs: Any = PAIRS, rows: Any = ANSWERS, **changes: Any) -> dict[str, Any]:
    tables.write_parquet(f"{tmp_path}/pairs/a.parquet", tables.PAIRS, [tables.rows_batch(pairs, tables.PAIRS)])
    tables.write_parquet(f"{tmp_path}/r/a.parquet", tables.RATIONALES, [tables.rows_batch(rows, tables.RATIONALES)])
    values = {"output": f"{tmp_path}/out", "pairs": f"{tmp_path}/pairs", "rationales": f"{tmp_path}/r"}
    return run(CurateConfig.from_mapping({**values, "label_schema": "esci", "mode": mode, **changes}, "test"))


def test_sft_counts_every_answer(tmp_path: Path) -> None:
    metrics = curate(tmp_path, "sft", on_empty_class="count")
    assert (metrics["rows_in"], metrics["rows_out"]) == (18, 2)
    assert metrics["rejected"] == {"wrong_label": 9, "no_label": 1}
    assert metrics["skipped"] == {"no_gold": 3, "not_train": 3}
    assert metrics["yields"]["perspective"]["user_intent"] == {"rows_in": 6, "rows_out": 2, "yield": 0.3333}
    table = tables.read_table(f"{tmp_path}/out", tables.SFT).to_pylist()
    assert [row["completion"] for row in table] == [
        "user_intent 0 of p1\nLabel: Exact",
        "user_intent 2 of p1\nLabel: Exact",
    ]
    assert [message["role"] for message in table[0]["prompt"]] == ["system", "user"]
    assert '"title p1"' in table[0]["prompt"][1]["content"]
    assert tables.read_table(f"{tmp_path}/out/rejected", tables.REJECTED).num_rows == 10


def test_preferences_count_every_pair_and_perspective(tmp_path: Path) -> None:
    metrics = curate(tmp_path, "preferences")
    assert (metrics["rows_in"], metrics["rows_out"]) == (6, 1)
    assert metrics["rejected"] == {"no_right_rationale": 2}
    assert metrics["skipped"] == {"no_conflict": 1, "no_gold": 1, "not_train": 1}
    assert (metrics["num_pairs"], metrics["num_conflict_pairs"], metrics["num_same_perspective"]) == (2, 2, 0)
    (row,) = tables.read_table(f"{tmp_path}/out", tables.PREFERENCES).to_pylist()
    assert (row["chosen_perspective"], row["rejected_perspective"]) == ("user_intent", "business_rule")
    assert row["chosen"].endswith("Label: Exact")
    assert row["rejected"].endswith("Label: Irrelevant")


def test_perspectives_can_be_chosen(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing left to train on"):
        curate(tmp_path, "sft", perspectives=["business_rule"])


def test_a_training_query_that_is_also_held_out_ends_the_job(tmp_path: Path) -> None:
    leaked = [*PAIRS[:4], pair("p5", EXACT, "dev", query="query p1")]
    with pytest.raises(InputError, match=r"query 'query p1' \(en\) is in train and in dev or test"):
        curate(tmp_path, "sft", pairs=leaked)
    with pytest.raises(InputError, match=r"holds no \*\.parquet"):
        tables.list_parquet(f"{tmp_path}/out")


def test_answers_of_another_pairs_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 of 4 pairs are not in"):
        curate(tmp_path, "sft", pairs=PAIRS[1:])


def test_a_class_that_gives_no_row_ends_the_job(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no row to learn from for class Irrelevant \(6 rows in\).*on_empty_class"):
        curate(tmp_path, "sft")
    assert curate(tmp_path, "sft", on_empty_class="count")["rows_out"] == 2


def test_as_many_rows_as_another_table_has(tmp_path: Path) -> None:
    metrics = curate(tmp_path, "sft", max_rows=1, on_empty_class="count")
    assert (metrics["rows_in"], metrics["rows_out"], metrics["skipped"]["not_drawn"]) == (18, 1, 1)


KETTLES = [
    {**pair("k1", EXACT, query="norvik kettle red"), "brand": "Norvik", "attributes": "color=red; capacity=1.5 l"},
    {**pair("k2", EXACT, query="kettle"), "brand": "Dorly", "attributes": "color=blue"},
    {**pair("k3", IRRELEVANT, query="kettle 2"), "brand": "Dorly", "attributes": "color=blue"},
]


def said(pair_id: str, perspective: str, *texts: tuple[str, str | None]) -> list[dict[str, Any]]:
    rows = answers(pair_id, perspective, *(label for _, label in texts))
    return [{**row, "rationale": text} for row, (text, _) in zip(rows, texts, strict=True)]


SAID = [
    *said(
        "k1", "user_intent", ("a red Norvik, as asked", EXACT), ("a blue Dorly", EXACT), ("a red Norvik", IRRELEVANT)
    ),
    *said("k1", "business_rule", ("brand Dorly", IRRELEVANT), ("colour red", IRRELEVANT), ("no", None)),
    *said("k2", "user_intent", ("a red one", EXACT), ("a red one again", EXACT)),
    *said("k3", "user_intent", ("not asked for", IRRELEVANT)),
]


def test_answers_that_name_what_the_pair_does_not_hold_are_counted_and_can_be_left_out(tmp_path: Path) -> None:
    metrics = curate(tmp_path / "all", "sft", KETTLES, SAID)
    assert metrics["faithfulness"]["user_intent"] == {
        "num_answers": 6,
        "num_mentions": 8,
        "num_unsupported": 4,
        "num_unfaithful_answers": 3,
        "unsupported": 0.5,
    }
    rows = tables.read_table(f"{tmp_path}/all/out", tables.SFT).to_pylist()
    assert [row["unsupported"] for row in rows] == [0.0, 1.0, 1.0, 1.0, 0.0]
    metrics = curate(tmp_path / "kept", "sft", KETTLES, SAID, max_unsupported=0.0)
    assert metrics["rejected"]["unsupported"] == 3
    assert tables.read_table(f"{tmp_path}/kept/out", tables.SFT).column("unsupported").to_pylist() == [0.0, 0.0]


def test_rewards_choose_the_faithful_right_answer(tmp_path: Path) -> None:
    metrics = curate(tmp_path, "rewards", KETTLES, SAID)
    assert (metrics["rows_in"], metrics["rows_out"], metrics["rejected"]) == (3, 1, {"no_margin": 2})
    assert metrics["yields"]["perspective"] == {"all": {"rows_in": 3, "rows_out": 1, "yield": 0.3333}}
    (row,) = tables.read_table(f"{tmp_path}/out", tables.PREFERENCES).to_pylist()
    assert row["chosen"] == "a red Norvik, as asked\nLabel: Exact"
    assert row["chosen_unsupported"] == 0.0
    assert row["chosen_reward"] - row["rejected_reward"] >= 0.25
