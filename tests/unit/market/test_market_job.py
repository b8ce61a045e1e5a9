import json

import pyarrow.parquet as pq
import pytest

from jobs.market import MarketConfig, run
from raylib.errors import ConfigError
from raylib.tables import list_parquet

SMALL = {"num_rows": 1_500, "num_queries": 50, "rows_per_file": 1_000, "corpus_traces": 200}


def test_run_writes_logs_corpus_and_metrics_and_is_done_once(tmp_path):
    config = MarketConfig(output=str(tmp_path / "market"), **SMALL)
    metrics = run(config)
    files = list_parquet(config.output)
    assert len(files) == 2
    assert sum(pq.read_metadata(file).num_rows for file in files) == metrics["rows_out"] == 1_500
    assert pq.read_table(tmp_path / "market" / "corpus").num_rows == metrics["num_traces"] == 200
    assert metrics["num_items"] == 64_800 * 6
    assert json.loads((tmp_path / "market" / "metrics.json").read_text()) == metrics
    before = [pq.read_metadata(file).serialized_size for file in files]
    assert run(config) == metrics
    assert [pq.read_metadata(file).serialized_size for file in files] == before


def test_no_corpus_unless_asked_for(tmp_path):
    run(MarketConfig(output=str(tmp_path / "market"), **SMALL | {"corpus_traces": 0}))
    assert not (tmp_path / "market" / "corpus").exists()


def test_wrong_settings_are_all_named_at_once():
    wrong = {"output": "x", "locales": ["en", "xx"], "gold_share": 1.5, "num_rows": 0, "rows": 3}
    with pytest.raises(ConfigError) as error:
        MarketConfig.from_mapping(wrong, "test")
    assert all(name in str(error.value) for name in ("locales", "gold_share", "num_rows", "rows: unknown setting"))
    with pytest.raises(ConfigError, match="each may be named once"):
        MarketConfig.from_mapping({"output": "x", "locales": ["en", "en"]}, "test")
