import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raylib.labels import LabelSchema
from raylib.logs.rows import TEXTS, as_rows
from raylib.logs.validate import REASONS, Validated, validate
from raylib.tables import REJECTED, SPLITS, rows_batch

ESCI = LabelSchema.load("esci")
GOOD: dict[str, Any] = {
    "query": "red shoes",
    "locale": "en",
    "item_id": "I1",
    "title": "Red running shoes",
    "brand": None,
    "category": None,
    "attributes": "color=red",
    "gold": "E",
    "split": None,
    "impressions": 3,
    "clicks": 1,
}


def check(rows: list[dict[str, Any]]) -> Validated:
    columns = {name: pa.array([row[name] for row in rows], pa.binary()).view(pa.string()) for name in TEXTS}
    columns |= {name: pa.array([row[name] for row in rows], pa.int64()) for name in ("impressions", "clicks")}
    return validate(as_rows(pa.table(columns)), ESCI, max_query_chars=20, max_title_chars=50)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("bad_text", {"title": b"caf\xe9"}),
        ("bad_text", {"attributes": b"\xff"}),
        ("null_query", {"query": None}),
        ("blank_query", {"query": " \u3000"}),
        ("blank_query", {"query": "\x00\x07"}),
        ("null_title", {"title": None}),
        ("blank_title", {"title": "\u200b"}),
        ("null_item_id", {"item_id": None}),
        ("null_item_id", {"item_id": ""}),
        ("null_locale", {"locale": None}),
        ("too_long", {"title": "x" * 100_000}),
        ("too_long", {"query": "q" * 21}),
        ("too_long", {"category": "c" * 51}),
        ("null_count", {"clicks": None}),
        ("negative_count", {"impressions": -1}),
        ("label_outside_schema", {"gold": "Perfect"}),
        ("unknown_split", {"split": "validation"}),
        ("null_query", {"query": None, "title": None, "clicks": -1}),  # the first reason counts
    ],
)
def test_a_bad_row_is_rejected_with_its_reason_and_content(reason: str, changes: dict[str, Any]) -> None:
    result = check([GOOD, GOOD | changes, GOOD])
    assert (result.num_good, result.partials.column("num_rows").to_pylist()) == (2, [2])
    assert [row["reason"] for row in result.rejected] == [reason]
    payload = json.loads(result.rejected[0]["payload"])
    changed = {name: payload[name] for name in changes}
    assert changed == {
        n: v.decode(errors="backslashreplace") if isinstance(v, bytes) else v for n, v in changes.items()
    }
    rows_batch(result.rejected, REJECTED)


def test_every_reason_is_tested() -> None:
    marks = test_a_bad_row_is_rejected_with_its_reason_and_content.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in marks[0].args[1]} == set(REASONS)


def test_good_rows_are_cleaned_and_counted() -> None:
    rows = [
        GOOD | {"title": "Red\x00running\tshoes"},
        GOOD | {"brand": " Nike ", "item_id": "I2"},
        GOOD | {"query": "", "title": "a\tb"},
    ]
    result = check(rows)
    assert result.partials.column("title").to_pylist() == ["Red running shoes", "Red running shoes"]
    assert result.partials.column("brand").to_pylist() == [None, "Nike"]
    assert result.num_cleaned == 2


def test_limits_apply_to_the_cleaned_text() -> None:
    assert check([GOOD | {"title": "x" + " " * 1000}]).partials.num_rows == 1


def test_labels_and_splits_become_codes() -> None:
    rows = [
        GOOD | {"gold": gold, "split": split} for gold, split in [("E", "train"), ("irrelevant", "test"), (None, None)]
    ]
    partials = check(rows).partials
    assert partials.column("gold").to_pylist() == [ESCI.index("Exact"), ESCI.index("Irrelevant"), -1]
    assert partials.column("split").to_pylist() == [SPLITS.index("train"), SPLITS.index("test"), -1]


def test_a_pair_is_its_locale_query_and_item() -> None:
    rows = [
        GOOD,
        GOOD | {"title": "another"},
        GOOD | {"locale": "es"},
        GOOD | {"item_id": "I2"},
        GOOD | {"query": "RED shoes"},
    ]
    partials = check(rows).partials
    pairs, queries = partials.column("pair").to_numpy(), partials.column("query_hash").to_numpy()
    assert len(np.unique(pairs)) == len(pairs) == 4, "another spelling of the query is another pair"
    assert len(np.unique(queries)) == 1, "but it is the same query for the split"


def test_rows_of_a_pair_add_up_within_the_batch() -> None:
    rows = [GOOD, GOOD | {"item_id": "I0"}, GOOD | {"gold": None}, GOOD | {"title": "newer", "clicks": 5}]
    partials = check(rows).partials.to_pylist()
    assert [
        (row["title"], row["num_rows"], row["impressions"], row["clicks"], row["sequence"]) for row in partials
    ] == [
        ("Red running shoes", 1, 3, 1, 1),
        ("Red running shoes", 1, 3, 1, 2),
        ("newer", 2, 6, 6, 3),
    ]


def test_a_pair_does_not_depend_on_its_batch() -> None:
    alone = check([GOOD]).partials.column("pair")[0].as_py()
    among = check([GOOD | {"query": f"q{i}", "item_id": f"x{i}"} for i in range(50)] + [GOOD]).partials
    assert among.column("pair")[50].as_py() == alone


def test_a_batch_without_good_rows() -> None:
    result = check([GOOD | {"query": None}])
    assert (result.num_good, result.partials.num_rows) == (0, 0)
    assert len(result.rejected) == 1
