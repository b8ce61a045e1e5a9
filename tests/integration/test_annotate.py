"""jobs.annotate with a real engine and tiny models: counts, replay, error budget, bad input. Kills: test_faults.py."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from jobs.annotate import AnnotateConfig, run
from jobs.plan import PlanConfig
from jobs.plan import run as plan
from raylib import tables
from raylib.errors import BudgetError, ConfigError, InputError
from raylib.ray_session import ray_session

PERSPECTIVES = ["user_intent", "business_rule"]


def settings(pairs: str, output: Path, **changes: Any) -> dict[str, Any]:
    return {
        "output": str(output),
        "pairs": pairs,
        "model": "embedded",
        "perspectives": PERSPECTIVES,
        "samples": 2,
        "num_few_shots": 1,
        "max_tokens": 96,
        "pairs_per_unit": 2,
        "limits": {"too_long": 1.0, "unparsed": 1.0},
        "engine": {
            "enforce_eager": True,
            "dtype": "float32",
            "max_num_seqs": 16,
            "kv_cache_memory_bytes": 32 << 20,
            "max_model_len": 768,
        },
        **changes,
    }


def answers(output: Path) -> pa.Table:
    table = tables.read_table(str(output), tables.RATIONALES)
    return table.sort_by([(name, "ascending") for name in ("pair_id", "perspective", "sample")])


@pytest.fixture(scope="module")
def pairs(write_pairs: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """40 pairs and two that are too long for the model, and a Ray session to annotate them in."""
    folder = tmp_path_factory.mktemp("pairs")
    write_pairs(folder, 40)
    (folder / "part-0.parquet").rename(folder / "part-1.parquet")
    write_pairs(folder, 2, pair_id="too-long", title="shoes " * 1000)
    with ray_session():
        yield str(folder)


def test_more_than_the_machine_has_is_refused(pairs: str, tmp_path: Path) -> None:
    too_large = settings(pairs, tmp_path / "too_large", engine={"num_cpus": 10_000.0})
    with pytest.raises(ConfigError, match=r"lower engine\.num_engines"):
        run(AnnotateConfig.from_mapping(too_large, "test"))


def test_every_request_is_a_row_or_a_reject_and_a_replay_asks_the_rejects_alone(pairs: str, tmp_path: Path) -> None:
    output = tmp_path / "replayed"
    short = settings(pairs, output, max_tokens=48, limits={"too_long": 1.0, "unparsed": 1.0, "max_attempts": 1})
    first = run(AnnotateConfig.from_mapping(short, "test"))
    assert first["rows_in"] == 42 * 2 * 2
    assert first["num_units"] == 21
    assert first["rejected"]["too_long"] == 2 * 2 * 2
    assert 0 < first["rejected"]["truncated"] < first["rows_in"] - 8, "the limit must cut some answers and not all"
    assert first["cached_tokens"] > first["prompt_tokens"] / 2, "samples and pairs do not share their prefill"
    check_plan(short, first, tmp_path)
    before = answers(output)
    assert before.num_rows == first["rows_out"] > 40, "too few answers parse to say anything"
    again = run(AnnotateConfig.from_mapping({**short, "replay": True}, "test"))
    assert again["rows_in"] == first["rows_in"]
    assert again["rows_out"] > first["rows_out"]
    assert again["rejected"]["too_long"] == 8
    after = answers(output).to_pylist()
    assert len(after) == again["rows_out"]
    assert [row for row in after if row in before.to_pylist()] == before.to_pylist()
    rejects = tables.read_table(f"{output}/rejected", tables.REJECTED).to_pylist()
    assert len(rejects) == sum(again["rejected"].values())
    assert {row["attempt"] for row in rejects} == {2}
    assert run(AnnotateConfig.from_mapping(short, "test")) == again


def check_plan(settings: dict[str, Any], used: dict[str, Any], folder: Path) -> None:
    """jobs.plan counts before what the run has used: all of it, from a sample, and with answers to go by."""
    pipeline = folder / "pipeline.yaml"
    asked = {name: value for name, value in settings.items() if name != "output"}
    stages = [{"name": "ask", "job": "annotate", "settings": asked}]
    pipeline.write_text(yaml.safe_dump({"output": str(folder / "runs"), "stages": stages}))

    def planned(name: str, **changes: Any) -> dict[str, Any]:
        values = {"pipeline": str(pipeline), "output": str(folder / name), **changes}
        facts: dict[str, Any] = plan(PlanConfig.from_mapping(values, "test"))["stages"]["ask"]
        return facts

    facts = planned("plan")
    assert facts["pairs"] == used["num_pairs"]
    assert facts["answers"] == used["rows_in"] - used["rejected"]["too_long"]
    assert facts["prompt_tokens"] == used["prompt_tokens"]
    assert facts["uncached_prompt_tokens"] == pytest.approx(used["prompt_tokens"] - used["cached_tokens"], rel=0.05)
    measured = planned("measured", rationales=settings["output"])
    assert measured["generated_tokens"] == pytest.approx(used["generated_tokens"], rel=0.05)
    sampled = planned("sampled", sample_rows=20)
    assert sampled["pairs"] == used["num_pairs"]
    assert sampled["prompt_tokens"] == pytest.approx(used["prompt_tokens"], rel=0.05)


def test_the_budget_ends_a_run_and_a_larger_one_lets_it_go_on(tiny_model: str, pairs: str, tmp_path: Path) -> None:
    output = tmp_path / "budget"
    limits = {"too_long": 1.0, "unparsed": 0.5, "min_requests": 8, "max_attempts": 2}
    values = settings(pairs, output, model=tiny_model, max_tokens=4, limits=limits)
    with pytest.raises(BudgetError, match=r"truncated \d+ \(\d+\.\d%, allowed 50\.0%\)"):
        run(AnnotateConfig.from_mapping(values, "test"))
    kept = len(list(output.glob("unit-*.parquet")))
    assert kept > 0
    metrics = run(AnnotateConfig.from_mapping({**values, "limits": {**limits, "unparsed": 1.0}}, "test"))
    assert 0 < metrics["units_done_here"] <= 21 - kept  # the engine may have finished a unit after the driver gave up
    assert metrics["rejected"] == {"truncated": 160, "too_long": 8}
    assert metrics["retried"] == {"truncated": 160}


def test_bad_inputs_are_told_before_ray_starts(
    tiny_model: str, write_pairs: Callable[..., str], tmp_path: Path
) -> None:
    def attempt(name: str, **changes: Any) -> str:
        with pytest.raises(InputError) as error:
            run(
                AnnotateConfig.from_mapping(
                    {**settings(pairs, tmp_path / name), "model": tiny_model, **changes}, "test"
                )
            )
        return str(error.value)

    pairs = write_pairs(tmp_path / "pairs", 4)
    assert str(tmp_path / "nowhere") in attempt("a", model=str(tmp_path / "nowhere"))
    assert "adapter_config.json" in attempt("b", adapter=tiny_model)
    assert "no pair in split(s) test" in attempt("c", splits=["test"])
    assert "no such file" in attempt("d", pairs=str(tmp_path / "missing"))
    table = tables.read_table(pairs, tables.PAIRS).drop_columns(["title"])
    pq.write_table(table, tmp_path / "pairs" / "part-0.parquet")
    assert "missing column(s) title" in attempt("e")
