import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib.labels import LabelSchema
from raylib.logs.rows import LOG, ROWS
from raylib.logs.validate import validate
from raylib.market.search_logs import NUM_SHOWN, Market, log_chunk, write_logs

LOCALES = ("en", "es", "ja", "ko", "pt", "fr")
MARKET = Market(seed=11, num_queries=400, num_items=1, locales=LOCALES, gold_share=0.5)


@pytest.fixture(scope="module")
def frame():
    return log_chunk(MARKET, 6_000, np.random.default_rng(0)).to_pandas()


def judged_pairs(frame):
    return frame.drop_duplicates(["locale", "query", "item_id"]).dropna(subset="gold")


def test_rows_are_good_for_prepare():
    batch = log_chunk(MARKET, 300, np.random.default_rng(0))
    assert batch.schema == LOG
    columns = {name: batch.column(name) if name in batch.schema.names else pa.nulls(len(batch), pa.string())
               for name in ROWS.names}  # fmt: skip
    result = validate(pa.table(columns, schema=ROWS), LabelSchema.load("marketplace6"), 512, 2000)
    assert result.rejected == []
    assert result.num_cleaned == 0


def test_result_pages_show_ten_different_items(frame):
    pages = frame.groupby(np.arange(len(frame)) // NUM_SHOWN)
    assert (frame["position"].to_numpy().reshape(-1, NUM_SHOWN) == np.arange(1, NUM_SHOWN + 1)).all()
    assert (pages["query"].nunique() == 1).all()
    assert (pages["item_id"].nunique() == NUM_SHOWN).mean() > 0.99


def test_all_rows_of_a_pair_and_of_an_item_agree(frame):
    assert (frame.groupby(["locale", "query", "item_id"])["gold"].nunique(dropna=False) == 1).all()
    assert (
        frame.groupby("item_id")[["title", "brand", "category", "attributes", "locale"]].nunique(dropna=False) == 1
    ).all(axis=None)


def test_classes_are_balanced(frame):
    shares = judged_pairs(frame)["gold"].value_counts(normalize=True)
    assert 0.30 <= shares["Strongly Relevant"] <= 0.40
    assert len(shares) == 6
    assert shares.min() > 0.09


def test_gold_share_is_of_pairs(frame):
    pairs = frame.drop_duplicates(["locale", "query", "item_id"])
    assert abs(pairs["gold"].notna().mean() - 0.5) < 0.03
    for share, expected in ((0.0, 0.0), (1.0, 1.0)):
        market = Market(11, 400, 1, LOCALES, share)
        assert np.mean(log_chunk(market, 50, np.random.default_rng(0))["gold"].is_valid()) == expected


def test_clicks_follow_position_and_class(frame):
    by_position = frame.groupby("position")["clicks"].mean()
    assert by_position[1] > by_position[2] > by_position[4] > by_position[8] > 0
    by_class = frame[frame["position"] <= 3].groupby("gold")["clicks"].mean()
    assert by_class.idxmax() == "Strongly Relevant"
    assert by_class.idxmin() == "Category Mismatch"


def test_queries_follow_zipf_with_a_head_and_a_tail():
    market = Market(1, 10_000, 1, LOCALES, 1.0)
    probability = np.diff(market.zipf_cumulative, prepend=0.0)
    np.testing.assert_allclose(probability[0] / probability[99], 100, rtol=1e-6)
    assert market.zipf_cumulative[99] > 0.5  # a hundredth of the queries makes half of the searches
    assert market.zipf_cumulative[-1] == 1.0


def test_half_of_the_searches_are_english_and_each_locale_is_there(frame):
    shares = frame["locale"].value_counts(normalize=True)
    assert 0.35 < shares["en"] < 0.65
    assert set(shares.index) == set(LOCALES)
    only = Market(1, 100, 1, ("ja",), 1.0)
    assert set(log_chunk(only, 50, np.random.default_rng(0))["locale"].to_pylist()) == {"ja"}


def test_files_hold_exactly_the_rows_and_repeat_by_seed(tmp_path):
    assert write_logs(MARKET, str(tmp_path / "a"), 2_345, 1_000) == 3
    write_logs(MARKET, str(tmp_path / "b"), 2_345, 1_000)
    first, again = pq.read_table(tmp_path / "a"), pq.read_table(tmp_path / "b")
    assert first.num_rows == 2_345
    assert first.equals(again)
    other = Market(12, 400, 1, LOCALES, 0.5)
    write_logs(other, str(tmp_path / "c"), 2_345, 1_000)
    assert not first.equals(pq.read_table(tmp_path / "c"))


def test_an_interrupted_write_goes_on_with_the_missing_file(tmp_path):
    write_logs(MARKET, str(tmp_path), 3_000, 1_000)
    whole = pq.read_table(tmp_path)
    kept = (tmp_path / "logs-00000.parquet").stat().st_mtime_ns
    (tmp_path / "logs-00001.parquet").unlink()
    write_logs(MARKET, str(tmp_path), 3_000, 1_000)
    assert pq.read_table(tmp_path).equals(whole)
    assert (tmp_path / "logs-00000.parquet").stat().st_mtime_ns == kept
