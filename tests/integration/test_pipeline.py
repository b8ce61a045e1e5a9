"""The whole flow at its smallest: every stage real, on the embedded teacher and MiniLM."""

import json
from pathlib import Path

import pytest

from jobs.pipeline import PipelineConfig, run
from raylib import tables
from raylib.config import read_yaml

DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"
SMALLER = {
    "market": {"num_rows": 900, "num_queries": 24},
    "prepare": {"num_buckets": 2},
    "annotate": {"max_pairs": 24, "engine": {"dtype": "float32", "num_cpus": 1, "enforce_eager": True}},
    "curate": {"on_empty_class": "count"},
    "sft": {"num_epochs": 1.0},
    "distill": {"num_epochs": 1, "max_length": 48, "workers": {"cpus_per_worker": 1}},
    "serve": {"port": 18432},
}
# more starts of vLLM and further trainings, of kinds that the other stages or other tests have too
LEFT_OUT = ("unified_base", "annotate_sft", "unified_sft", "curate_dpo", "dpo", "student_bert")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The shipped demo with fewer rows, run once; (configuration, summary)."""
    content = read_yaml(DEMO)
    content["output"] = str(tmp_path_factory.mktemp("demo"))
    content["stages"] = [stage for stage in content["stages"] if stage["name"] not in LEFT_OUT]
    for stage in content["stages"]:
        stage["settings"] = {**stage["settings"], **SMALLER.get(stage["job"], {})}
        if stage["name"] == "unified_dpo":
            stage["settings"] |= {"adapter": "@sft/adapter", "max_pairs": 80}  # enough that some guide the student
        if stage["name"] == "evaluate":
            del stage["settings"]["runs"]["annotate SFT"], stage["settings"]["runs"]["curate DPO"]
            stage["settings"]["teachers"] = {"base": ["@annotate_base"], "SFT": ["@unified_dpo"]}
            stage["settings"]["students"] = {"LRKD GAT": "@student_lrkd_gat"}
    config = PipelineConfig.from_mapping(content, "demo")
    return config, run(config)


def test_every_stage_accounts_for_every_row(finished):
    config, summary = finished
    assert list(summary["stages"]) == [stage.name for stage in config.stages]
    for name, stage in summary["stages"].items():
        lost = stage["rows_in"] - stage["rows_out"] - sum(stage["rejected"].values()) - sum(stage["skipped"].values())
        assert lost == 0, name


def test_served_scores_equal_the_offline_ones(finished):
    config, summary = finished
    assert summary["stages"]["serve"]["parity"]["max_abs_difference"] <= 1e-4
    scores = tables.read_table(f"{config.output}/student_lrkd_gat", tables.SCORES)
    assert scores.num_rows > 0


def test_the_summary_on_disk_holds_what_was_returned_and_the_report_is_there(finished):
    config, summary = finished
    assert json.loads(Path(config.output, "summary.json").read_text()) == json.loads(json.dumps(summary))
    assert "<svg" in Path(config.output, "report.html").read_text()


def test_a_second_call_changes_nothing(finished):
    config, summary = finished
    before = {path: path.stat().st_mtime_ns for path in Path(config.output).rglob("*.parquet")}
    again = run(config)
    assert {path: path.stat().st_mtime_ns for path in Path(config.output).rglob("*.parquet")} == before
    assert json.loads(json.dumps(again["stages"])) == json.loads(json.dumps(summary["stages"]))
