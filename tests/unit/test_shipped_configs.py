"""Every YAML that ships is loaded by the model of its job, so that a renamed setting cannot leave one behind."""

from pathlib import Path

import pytest

from jobs.pipeline import JOBS, PipelineConfig, resolve_stages
from raylib.config import read_yaml

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def test_configs_are_found():
    assert {"demo.yaml", "esci.yaml", "qwen3-14b.yaml"} <= {path.name for path in CONFIGS}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_config_is_valid(path):
    content = read_yaml(path)
    if "stages" in content:
        assert resolve_stages(PipelineConfig.from_mapping({"input": "logs", **content}, str(path)))
    else:
        job = path.stem.split("-")[0]
        assert JOBS[job][0].from_file(path)


def test_settings_of_a_job_stay_few():
    too_many = {name: len(config.model_fields) for name, (config, _) in JOBS.items() if len(config.model_fields) > 20}
    assert too_many == {}
