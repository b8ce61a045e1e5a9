"""The pipeline's plan: references between stages and errors of all stages at once."""

import pytest

from jobs.pipeline import PipelineConfig, resolve_stages, stage_table
from raylib.errors import ConfigError


def pipeline(*stages):
    return PipelineConfig.from_mapping({"output": "runs/x", "stages": list(stages)}, "test")


MARKET = {"name": "logs", "job": "market", "settings": {}}


def test_reference_becomes_the_path_of_the_earlier_stage():
    prepare = {"name": "pairs", "job": "prepare", "settings": {"input": "@logs", "label_schema": "marketplace6"}}
    plan = resolve_stages(pipeline(MARKET, prepare))
    assert plan[1][1].input == "runs/x/logs"
    assert plan[1][1].output == "runs/x/pairs"


def test_all_mistakes_of_all_stages_are_told_together():
    stages = [
        {"name": "logs", "job": "market", "settings": {"num_rowz": 3}},
        {"name": "a", "job": "train"},
        {"name": "pairs", "job": "prepare", "settings": {"input": "@later", "label_schema": "marketplace6"}},
        {"name": "logs", "job": "market"},
    ]
    with pytest.raises(ConfigError) as error:
        resolve_stages(pipeline(*stages))
    for part in ("num_rowz", "unknown job 'train'", "@later", "used twice"):
        assert part in str(error.value)


def test_table_names_every_reason():
    metrics = {"rows_in": 1200, "rows_out": 1000, "rejected": {"too_long": 150}, "skipped": {"no_gold": 50}}
    table = stage_table("curate", {**metrics, "stage_s": 1.5, "peak_memory_bytes": 2**30}, is_done=False)
    assert "1,200" in table
    assert "rejected: too_long" in table
    assert "skipped: no_gold" in table
