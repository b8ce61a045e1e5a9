"""jobs.abtest on experiments whose truth is known: the market's users and click model."""

import numpy as np
import pytest

from jobs.abtest import AbtestConfig, run
from raylib import tables
from raylib.abtest.assignment import assign
from raylib.errors import ConfigError, InputError
from raylib.market.experiment import Experiment
from raylib.market.search_logs import Market

SHARES = {"control": 0.5, "lrkd": 0.5}
START = "1970-01-15T00:00:00Z"  # day 14 of the simulated events


@pytest.fixture(scope="module")
def experiment():
    market = Market(seed=3, num_queries=200, num_items=3000, locales=("en", "es"), gold_share=1.0)
    return Experiment(market, {"control": 0.2, "lrkd": 3.0})


@pytest.fixture(scope="module")
def events(experiment, tmp_path_factory):
    generator = np.random.default_rng(0)
    arm_U = np.array([assign(f"u{n}", "spring", SHARES) for n in range(6000)], dtype=object)
    table = experiment.events(arm_U, "control", generator)
    path = tmp_path_factory.mktemp("events")
    tables.write_parquet(f"{path}/part-0.parquet", tables.EVENTS, table.to_batches(max_chunksize=20_000))
    return str(path)


def config(output, events, **changes):
    values = {"output": str(output), "events": events, "shares": SHARES, "control": "control", "start": START}
    return AbtestConfig.from_mapping({**values, **changes}, "test")


def test_an_effect_that_is_there_is_found_and_its_interval_holds_the_truth(experiment, events, tmp_path, capsys):
    metrics = run(config(tmp_path / "run", events))
    truth = experiment.true_ctr
    row = metrics["metrics"]["CTR"]["lrkd"]
    assert row["p"] < 0.001
    assert row["difference"]["low"] < truth["lrkd"] - truth["control"] < row["difference"]["high"]
    assert metrics["metrics"]["CTR"]["control"]["value"] == pytest.approx(truth["control"], rel=0.05)
    assert metrics["rows_in"] == metrics["rows_out"] > 6000
    assert "RS" not in metrics["metrics"]  # nobody rated
    printed = capsys.readouterr().out
    assert "the split is as planned" in printed
    assert "CTR     lrkd" in printed
    assert run(config(tmp_path / "run", events)) == metrics


def test_an_interval_for_any_number_of_looks_is_wider(events, tmp_path):
    once, anytime = (run(config(tmp_path / looks, events, looks=looks)) for looks in ("once", "any"))
    widths = [
        metrics["metrics"]["CTR"]["lrkd"]["difference"]["high"] - metrics["metrics"]["CTR"]["lrkd"]["difference"]["low"]
        for metrics in (once, anytime)
    ]
    assert widths[1] > 1.2 * widths[0]


def test_nothing_is_reported_when_the_split_is_not_as_planned(events, tmp_path, capsys):
    metrics = run(config(tmp_path / "run", events, shares={"control": 0.6, "lrkd": 0.4}))
    assert metrics["split"]["is_mismatch"]
    assert metrics["metrics"] == {}
    assert "not as planned" in capsys.readouterr().out


def test_arms_that_do_not_fit_are_named(events, tmp_path):
    with pytest.raises(InputError, match=r"arm\(s\) lrkd, which are not planned"):
        run(config(tmp_path / "a", events, shares={"control": 0.5, "student": 0.5}))
    with pytest.raises(InputError, match=r"no user of arm\(s\) new"):
        run(config(tmp_path / "b", events, shares={"control": 0.5, "lrkd": 0.4, "new": 0.1}))


def test_wrong_settings_are_named_together(tmp_path):
    with pytest.raises(ConfigError, match="two arms or more, each above 0, together 1"):
        config(tmp_path, "e", shares={"control": 0.5, "lrkd": 0.4})
    with pytest.raises(ConfigError, match="control: 'old' is not among the shares"):
        config(tmp_path, "e", control="old")
    with pytest.raises(ConfigError, match="has no time zone"):
        config(tmp_path, "e", start="2026-11-01")
