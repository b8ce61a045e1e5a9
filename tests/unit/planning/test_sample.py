from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib.annotation.units import plan_units, read_unit
from raylib.errors import InputError
from raylib.labels import LabelSchema
from raylib.logs.source import plan_logs
from raylib.planning.sample import PairSample, is_drawn, sample_logs, sample_pairs

SCHEMA = LabelSchema.load("marketplace6")


def write_logs(path: Path, rows: list[dict[str, Any]]) -> str:
    path.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), path / "logs.parquet")
    return str(path)


def log(query: str, item: int, **changes: Any) -> dict[str, Any]:
    row = {"query": query, "locale": "en", "item_id": str(item), "title": f"item {item}"}
    return {**row, "impressions": 1, "clicks": 0, "gold": "Brand Mismatch", **changes}


def sample(uri: str, sample_rows: int) -> PairSample:
    return sample_logs(
        plan_logs(uri, "fail"),
        uri,
        SCHEMA,
        sample_rows,
        max_query_chars=512,
        max_title_chars=2000,
        on_conflict="majority",
        dev_share=0.1,
        test_share=0.2,
        seed=0,
    )


def test_a_complete_sample_selects_exactly_the_pairs_that_annotation_takes(write_pairs: Callable[..., str]):
    splits = [("train", "dev", "train", "test")[i % 4] for i in range(90)]
    uri = write_pairs(splits)
    found = sample_pairs(uri, 90)
    assert found.is_complete
    assert found.num_pairs == {"train": 45.0, "dev": 23.0, "test": 22.0}
    for names, max_pairs in ((["train"], 20), (["train", "test"], None), (["dev"], 1000)):
        rows, total = found.select(names, max_pairs)
        plan = plan_units(uri, names, max_pairs, 7)
        taken = [row["pair_id"] for index in range(plan.num_units) for row in read_unit(plan, plan.unit(index))]
        assert [row["pair_id"] for row in rows] == taken
        assert total == plan.num_pairs


def test_a_sampled_table_has_exact_counts_and_whole_queries(write_pairs: Callable[..., str]):
    found = sample_pairs(write_pairs(["train", "test"] * 200), 100)
    assert found.num_pairs == {"train": 200.0, "dev": 0.0, "test": 200.0}
    assert not found.is_complete
    assert 0 < len(found.rows) < 400
    assert len(found.rows) % 4 == 0  # a query has four pairs
    rows, total = found.select(["train"], 50)
    assert total == 50
    assert {row["split"] for row in rows} == {"train"}
    assert found.select(["dev"], None)[1] == 0


def test_logs_become_the_pairs_of_prepare(tmp_path: Path):
    rows = [log("red shoes", 1, clicks=1), log(" red\tshoes", 1), log("red shoes", 2, gold=None), log("Red Shoes", 1)]
    rows += [log("", 3), log("blue", 4, gold="no class"), log("blue", 5)]
    found = sample(write_logs(tmp_path / "logs", rows), 100)
    assert sorted((row["query"], row["title"]) for row in found.rows) == [
        ("Red Shoes", "item 1"),
        ("blue", "item 5"),
        ("red shoes", "item 1"),
        ("red shoes", "item 2"),
    ]
    assert sum(found.num_pairs.values()) == 4
    assert sum(found.num_judged.values()) == 3
    assert found.relative_error == 0
    assert found.is_complete


def test_a_query_is_drawn_or_not_in_every_spelling():
    spellings = [[f"Query {i}", f" query  {i}", f"QUERY\t{i}"] for i in range(300)]
    drawn = is_drawn(pa.array([text for group in spellings for text in group]), 0.4).reshape(300, 3)
    assert (drawn.all(axis=1) | ~drawn.any(axis=1)).all()
    assert is_drawn(pa.array(["a", None]), 0.9999999).tolist() == [True, False]
    many = is_drawn(pa.array([f"q{i}" for i in range(40_000)]), 0.25)
    assert abs(many.mean() - 0.25) < 4 * (0.25 * 0.75 / 40_000) ** 0.5
    fewer = is_drawn(pa.array([f"q{i}" for i in range(40_000)]), 0.1)
    assert not (fewer & ~many).any()  # a smaller sample lies within a larger one


def test_the_estimate_of_pairs_is_unbiased_and_its_error_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """40 logs of 120 queries with 1 to 20 items, each row twice: the estimates spread around the truth."""
    monkeypatch.setattr("raylib.planning.sample.LOG_ROWS_PER_PAIR", 2)
    ratios, errors = [], []
    for number in range(40):
        sizes = np.random.default_rng(number).integers(1, 21, 120)
        rows = [log(f"{number} q{q}", item) for q in range(120) for item in range(sizes[q])] * 2
        found = sample(write_logs(tmp_path / str(number), rows), len(rows) // 6)
        ratios.append(sum(found.num_pairs.values()) / sum(sizes))
        errors.append(found.relative_error)
        assert sum(found.num_judged.values()) == pytest.approx(sum(found.num_pairs.values()))
    assert abs(mean(ratios) - 1) < 4 * stdev(ratios) / 40**0.5
    assert mean(errors) == pytest.approx(stdev(ratios), rel=0.35)


def test_what_cannot_be_sampled_is_told(tmp_path: Path, write_pairs: Callable[..., str]):
    with pytest.raises(InputError, match="the pairs table is empty"):
        sample_pairs(write_pairs([]), 10)
    with pytest.raises(InputError, match=r"no pair among the 1 sampled rows; raise sample_rows"):
        sample_pairs(write_pairs(["train"] * 4, name="few"), 1)
    with pytest.raises(InputError, match="no pair among"):
        sample(write_logs(tmp_path / "logs", [log("", 1)]), 10)
