import pytest

from raylib import tables
from raylib.errors import InputError, ParityError
from raylib.serving.parity import check_parity, read_sample, requests_of

PARITY = {"max_abs_difference": 1e-3, "worst_pair_id": "p7", "num_changed_labels": 1, "num_rows": 5}


def pair(number: int, query: str, title: str = "t") -> dict:
    return {
        "pair_id": f"p{number}", "bucket": 0, "query": query, "item_id": f"i{number}", "title": title, "brand": None,
        "category": None, "attributes": None, "locale": "en", "impressions": 0, "clicks": 0, "gold": None,
        "split": "test",
    }  # fmt: skip


def write(folder, pairs: list[dict], scored: list[str]) -> tuple[str, str]:
    scores = [{"pair_id": name, "probs": [0.5, 0.5], "label": "a", "score": 0.5, "tier": 2} for name in scored]
    tables.write_parquet(f"{folder}/pairs/a.parquet", tables.PAIRS, [tables.rows_batch(pairs, tables.PAIRS)])
    tables.write_parquet(f"{folder}/scores/a.parquet", tables.SCORES, [tables.rows_batch(scores, tables.SCORES)])
    return f"{folder}/scores", f"{folder}/pairs"


def test_requests_hold_one_query_and_at_most_max_items():
    pairs = [pair(i, f"q{i % 2}") for i in range(7)]
    requests = list(requests_of(pairs, 3))
    assert [len(request["items"]) for request, _ in requests] == [3, 1, 3]
    for request, asked in requests:
        assert {p["query"] for p in asked} == {request["query"]}
        assert [p["item_id"] for p in asked] == [item["item_id"] for item in request["items"]]
    assert sorted(p["pair_id"] for _, asked in requests for p in asked) == [f"p{i}" for i in range(7)]


def test_tolerance_decides():
    check_parity(PARITY, 1e-3)
    with pytest.raises(ParityError, match="p7"):
        check_parity(PARITY, 9e-4)


def test_sample_is_seeded_and_counts_what_no_request_can_hold(tmp_path):
    pairs = [pair(i, "q", "t" * 20_000 if i == 0 else "t") for i in range(9)]
    uris = write(tmp_path, pairs, [f"p{i}" for i in range(9)])
    sample = read_sample(*uris, num_rows=9, seed=0)
    assert (len(sample.pairs), sample.num_over_limit) == (8, 1)
    some = [{p["pair_id"] for p in read_sample(*uris, num_rows=4, seed=seed).pairs} for seed in (1, 1, 2)]
    assert some[0] == some[1] != some[2]


def test_scores_of_other_pairs_are_named(tmp_path):
    uris = write(tmp_path, [pair(1, "q")], ["p1", "p2"])
    with pytest.raises(InputError, match="p2"):
        read_sample(*uris, num_rows=5, seed=0)


def test_empty_scores_are_named(tmp_path):
    uris = write(tmp_path, [pair(1, "q")], [])
    with pytest.raises(InputError, match="empty"):
        read_sample(*uris, num_rows=5, seed=0)
