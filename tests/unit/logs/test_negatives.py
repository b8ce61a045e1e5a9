"""jobs.negatives: it draws nothing that is known for a query, nothing across splits or locales, and loses no row."""

from collections import Counter, defaultdict

import pytest

from jobs.negatives import NegativesConfig, run
from raylib import tables
from raylib.errors import InputError


def pair(number, query, split="train", gold="Exact", locale="en", clicks=0, item=None):
    return {
        "pair_id": f"{number:016x}",
        "bucket": 0,
        "query": query,
        "item_id": item or f"item{number}",
        "title": f"title of {item or f'item{number}'}",
        "brand": f"brand of {item or f'item{number}'}",
        "locale": locale,
        "impressions": 9,
        "clicks": clicks,
        "gold": gold,
        "split": split,
    }


QUERIES = [f"query {letter}" for letter in "abcdefghijklmnopqrst"]
ROWS = [
    *(pair(n, QUERIES[n // 3], "train", ("Exact", "Partial", "Irrelevant")[n % 3]) for n in range(42)),
    *(pair(n, QUERIES[n // 3], "dev") for n in range(42, 51)),
    *(pair(n, QUERIES[n // 3], "test") for n in range(51, 60)),
    *(pair(n, f"だれか {n % 2}", locale="ja") for n in range(60, 64)),
    pair(64, "QUERY  a", item="item0"),  # the same query, written otherwise
    pair(65, "only", gold=None, clicks=3),
    pair(66, "looked at", gold=None, clicks=1),
    pair(67, "alone", locale="pt"),
]


@pytest.fixture
def uri(tmp_path):
    def write(rows, name="pairs"):
        batch = tables.rows_batch(rows, tables.PAIRS)
        tables.write_parquet(f"{tmp_path}/{name}/bucket-00000.parquet", tables.PAIRS, [batch])
        return f"{tmp_path}/{name}"

    return write


def config(uri, output, **changes):
    paths = {"output": str(output), "pairs": uri}
    return NegativesConfig(**paths, **{"label_schema": "graded3", "min_gain": 0.5, "num_negatives": 4, **changes})


def test_negatives_are_items_of_other_queries_in_the_same_split_and_locale(uri, tmp_path):
    metrics = run(config(uri(ROWS), tmp_path / "out", num_negatives=5, min_clicks=3))
    written = tables.read_table(str(tmp_path / "out"), tables.PAIRS).to_pylist()
    known, places, source = defaultdict(set), {}, {row["item_id"]: row for row in ROWS}
    for row in ROWS:
        query = "".join(sorted(row["query"].lower().replace(" ", "")))
        known[query].add(row["item_id"])
        places[row["item_id"]] = (row["split"], row["locale"])
    by_label = defaultdict(list)
    for row in written:
        by_label[row["gold"]].append(row)
    positives = [
        row for row in ROWS if row["split"] != "test" and (row["gold"] in ("Exact", "Partial") or row["clicks"] >= 3)
    ]
    assert [row["pair_id"] for row in by_label["Match"]] == [row["pair_id"] for row in positives]
    assert {row["query"] for row in by_label["Match"]} >= {"only"}
    assert by_label["Mismatch"]
    for row in by_label["Mismatch"]:
        query = "".join(sorted(row["query"].lower().replace(" ", "")))
        assert row["item_id"] not in known[query]
        assert places[row["item_id"]] == (row["split"], row["locale"])
        assert (row["title"], row["brand"]) == (source[row["item_id"]]["title"], source[row["item_id"]]["brand"])
        assert (row["impressions"], row["clicks"]) == (0, 0)
    ids = [row["pair_id"] for row in written]
    assert len(set(ids)) == len(ids)
    per_query = Counter(row["query"] for row in by_label["Mismatch"])
    assert per_query["query b"] == 2 * 5  # two positives, and items enough
    assert per_query["alone"] == 0
    assert metrics["pairs_by_label"] == {name: len(rows) for name, rows in by_label.items()}
    assert metrics["rows_in"] == len(ROWS) + 5 * len(positives)
    assert metrics["skipped"]["test"] == 9
    assert metrics["skipped"]["no_other_item"] == 5 * len(positives) - len(by_label["Mismatch"])


def test_the_same_seed_draws_the_same_and_another_draws_anew(uri, tmp_path):
    pairs = uri(ROWS)
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        run(config(pairs, tmp_path / name, seed=seed))
    one, again, other = (tables.read_table(str(tmp_path / name), tables.PAIRS) for name in ("one", "again", "other"))
    assert one.equals(again)
    assert not one.equals(other)


def test_without_a_positive_it_says_what_to_lower(uri, tmp_path):
    with pytest.raises(InputError, match=r"gain of at least 0\.5.*lower min_gain"):
        run(config(uri([pair(0, "q", gold="Irrelevant")]), tmp_path / "out"))


def test_another_label_schema_is_told(uri, tmp_path):
    with pytest.raises(
        InputError, match=r"bucket-00000\.parquet: gold label\(s\) 'Partial' outside the label schema esci"
    ):
        run(config(uri(ROWS), tmp_path / "out", label_schema="esci"))


def test_every_file_is_drawn_from_by_itself_and_an_empty_one_is_kept(uri, tmp_path):
    pairs = uri(ROWS)
    tables.write_parquet(f"{pairs}/bucket-00001.parquet", tables.PAIRS, [])
    metrics = run(config(pairs, tmp_path / "out"))
    assert metrics["rows_out"] == tables.read_table(str(tmp_path / "out"), tables.PAIRS).num_rows
