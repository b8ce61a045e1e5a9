"""jobs.plan on pipelines: the stages' facts, what they assume, and every mistake that a user can make."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.plan import PlanConfig, run
from raylib.config import read_yaml
from raylib.errors import ConfigError, InputError
from raylib.labels import LabelSchema
from raylib.models import EMBEDDED_DIR
from raylib.planning.sample import sample_pairs
from raylib.prompts import encode_prompt, load_perspective
from raylib.teacher.encoding import load_tokenizer

CONFIGS = Path(__file__).parents[3] / "configs"
SPLITS = ["train"] * 24 + ["dev"] * 8 + ["test"] * 8
PREPARE = {"name": "prepare", "job": "prepare", "settings": {"input": "@input", "label_schema": "marketplace6"}}
ANNOTATE = {
    "pairs": "@prepare",
    "perspectives": ["unified"],
    "samples": 2,
    "num_few_shots": 0,
    "engine": {"num_gpus": 1.0, "num_engines": 4},
}


def stage(name: str, job: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "job": job, "settings": settings}


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Plans a pipeline of the given stages (or of a file); keywords are settings of the plan."""
    number = 0

    def plan(stages: list[dict[str, Any]] | Path, **settings: Any) -> dict[str, Any]:
        nonlocal number
        number += 1
        content = read_yaml(stages) if isinstance(stages, Path) else {"stages": stages}
        pipeline = tmp_path / f"pipeline{number}.yaml"
        pipeline.write_text(yaml.safe_dump({**content, "output": str(tmp_path / "runs")}))
        values = {"pipeline": str(pipeline), "output": str(tmp_path / f"plan{number}"), "input": str(tmp_path / "logs")}
        return run(PlanConfig.from_mapping({**values, **settings}, "test"))

    return plan


def test_an_annotate_stage(plan: Callable[..., Any], write_pairs: Callable[..., str], tmp_path: Path):
    pairs = write_pairs(SPLITS)
    hardware = {"gpu": "H100-80GB", "num_gpus": 2, "price_per_gpu_hour": 3.0}
    assumptions = {"answer_tokens": 50}
    metrics = plan(
        [PREPARE, stage("ask", "annotate", **ANNOTATE)], pairs=pairs, hardware=hardware, assumptions=assumptions
    )
    facts = metrics["stages"]["ask"]
    tokenizer, schema = load_tokenizer(str(EMBEDDED_DIR)), LabelSchema.load("marketplace6")
    rows = [row for row in sample_pairs(pairs, 40).rows if row["split"] == "train"]
    unified = load_perspective("unified")
    tokens = sum(len(encode_prompt(tokenizer, unified.messages(schema, row, 0))) for row in rows)
    assert facts["prompt_tokens"] == 2 * tokens
    assert (facts["pairs"], facts["prompts"], facts["answers"]) == (24, 24, 48)
    assert facts["generated_tokens"] == 48 * 50
    assert (facts["processes"], facts["processes_that_fit"]) == (2, 2)
    assert facts["cost"] == pytest.approx(3 * facts["gpu_hours"])
    assert facts["hours"] == pytest.approx(facts["gpu_hours"] / 2)
    assert metrics["rows_out"] == 2
    text = (tmp_path / "plan1" / "plan.md").read_text()
    assert f"| prompt tokens | {2 * tokens:,} |" in text
    assert "ASSUMED to be 50.0 tokens long: given as assumptions.answer_tokens" in text
    assert "ask: 4 processes of 1 GPU(s) are configured, but only 2 fit 2 GPU(s)" in text

    measured = plan(
        [PREPARE, stage("ask", "annotate", **ANNOTATE)], pairs=pairs, throughput={"generated_tokens_per_s": 10}
    )
    facts = measured["stages"]["ask"]
    assert facts["hours"] == pytest.approx(facts["generated_tokens"] / 10 / 4 / 3600)
    assert facts["gpu_hours"] == pytest.approx(facts["generated_tokens"] / 10 / 3600)


def test_training_follows_curation(plan: Callable[..., Any], write_pairs: Callable[..., str], tmp_path: Path):
    stages = [
        PREPARE,
        stage("ask", "annotate", **ANNOTATE),
        stage("keep", "curate", pairs="@prepare", rationales="@ask", mode="sft"),
        stage("sft", "sft", sft="@keep", model="embedded", global_batch=4, workers={"use_gpu": True}),
        stage("pick", "curate", pairs="@prepare", rationales="@ask", mode="preferences"),
        stage("dpo", "dpo", preferences="@pick", model="embedded", adapter="@sft", num_epochs=1.0),
    ]
    pairs = write_pairs(SPLITS)
    assumptions = {"answer_tokens": 50, "sft_share": 0.5, "preference_share": 0.25}
    metrics = plan(stages, pairs=pairs, assumptions=assumptions)
    asked, sft, dpo = (metrics["stages"][name] for name in ("ask", "sft", "dpo"))
    prompt = asked["prompt_tokens"] / 48  # curated with the same prompt as asked
    assert sft["rows"] == 24  # half of 48 answers
    assert sft["tokens"] == round(24 * (prompt + 50))
    assert (sft["steps"], sft["tokens_trained"]) == (18, 3 * sft["tokens"])
    assert sft["parameters_trained"] == 155_648
    assert dpo["rows"] == 6
    assert dpo["tokens"] == round(6 * (prompt + 100))
    assert dpo["tokens_computed"] == round(6 * 2 * (prompt + 50))
    assert "hours" in sft
    assert "hours" not in dpo  # on CPUs
    assert any("ASSUMED to keep 50% of the answers" in note for note in metrics["assumptions"])

    keep = tmp_path / "runs" / "keep"
    keep.mkdir(parents=True)
    (keep / "metrics.json").write_text(json.dumps({"rows_out": 7}))
    (keep / "_SUCCESS").write_text("")
    rates = {"trained_tokens_per_s": {"dpo": 20.0}}
    metrics = plan(stages, pairs=pairs, assumptions=assumptions, throughput=rates)
    assert metrics["stages"]["sft"]["rows"] == 7
    assert metrics["stages"]["dpo"]["hours"] == pytest.approx(metrics["stages"]["dpo"]["tokens_trained"] / 20 / 3600)
    assert any(note.startswith("keep has run: its 7 rows") for note in metrics["assumptions"])

    unjudged = plan(stages, pairs=write_pairs(SPLITS, is_judged=False, name="unjudged"))
    assert unjudged["stages"]["sft"]["rows"] == 0
    assert any("keep: no judged train pair in the sample" in note for note in unjudged["assumptions"])


def test_a_student_that_learns_to_match_first(plan: Callable[..., Any], write_pairs: Callable[..., str]):
    common = {"objective": "bert", "extractor": "none", "global_batch": 8, "num_epochs": 1}
    stages = [
        PREPARE,
        stage("drawn", "negatives", pairs="@prepare", label_schema="marketplace6", num_negatives=3),
        stage("match", "distill", pairs="@drawn", label_schema="matching", **common),
        stage("student", "distill", pairs="@prepare", label_schema="marketplace6", backbone="@match/model", **common),
    ]
    pairs = write_pairs(SPLITS)
    metrics = plan(stages, pairs=pairs)
    schema, gold = LabelSchema.load("marketplace6"), [row["gold"] for row in sample_pairs(pairs, 1000).rows]
    share = sum(schema.gains[schema.index(name)] >= 0.1 for name in gold) / len(gold)
    match, student = metrics["stages"]["match"], metrics["stages"]["student"]
    assert 0 < share <= 1
    assert student["rows"] == 24
    assert match["rows"] == round(24 * share * 4)
    assert match["parameters"] == student["parameters"]
    assert any("drawn: each draw is ASSUMED to find an item" in note for note in metrics["assumptions"])


@pytest.mark.parametrize("name", ["demo.yaml", "esci.yaml", "qwen3-14b.yaml"])
def test_every_shipped_pipeline_can_be_planned(
    plan: Callable[..., Any],
    write_pairs: Callable[..., str],
    write_model: Callable[..., str],
    tmp_path: Path,
    name: str,
):
    text = (CONFIGS / name).read_text()
    models = {
        "Qwen/Qwen3-14B": write_model(),
        "BAAI/bge-m3": "minilm",
        "google-bert/bert-base-multilingual-cased": "minilm",
    }
    for model, stand_in in models.items():
        text = text.replace(model, stand_in)
    file = tmp_path / name
    file.write_text(text)
    metrics = plan(file, pairs=write_pairs(SPLITS))
    jobs = {one["name"]: one["job"] for one in read_yaml(file)["stages"]}
    planned = {"prepare", "annotate", "dapt", "sft", "dpo", "embed", "distill"}
    assert set(metrics["stages"]) == {one for one, job in jobs.items() if job in planned}
    for one, facts in metrics["stages"].items():
        assert all(value >= 0 for value in facts.values()), one
    if name == "qwen3-14b.yaml":
        assert metrics["stages"]["dapt"]["parameters_trained"] == 14_768_307_200
        assert metrics["totals"]["gpu_hours"] > 0
        assert not any("does NOT FIT" in note for note in metrics["assumptions"])


def test_what_does_not_fit_is_said(
    plan: Callable[..., Any], write_pairs: Callable[..., str], write_model: Callable[..., str], tmp_path: Path
):
    model = write_model()
    small = tmp_path / "small.yaml"
    small.write_text("{memory_gb: 24, tflops: 121, bandwidth_gb_s: 300}")
    stages = [
        PREPARE,
        stage("ask", "annotate", **ANNOTATE, model=model),
        stage("short", "annotate", **{**ANNOTATE, "engine": {"max_model_len": 300}}, max_tokens=200),
        stage("dapt", "dapt", corpus="@prepare", model=model, workers={"use_gpu": True, "precision": "bfloat16"}),
    ]
    metrics = plan(stages, pairs=write_pairs(SPLITS), hardware={"gpu": str(small), "num_gpus": 8})
    notes = "\n".join(metrics["assumptions"])
    assert "ask: the model does NOT FIT: 27.5 GiB of weights" in notes
    assert "short: 100.0% of the prompts leave no room for an answer of 200 tokens within 300" in notes
    assert "dapt: one process needs" in notes
    assert "hours" not in metrics["stages"]["ask"]
    assert metrics["stages"]["short"]["prompts_too_long"] == 24


def test_mistakes_are_told(plan: Callable[..., Any], write_pairs: Callable[..., str], tmp_path: Path):
    ask = stage("ask", "annotate", **ANNOTATE)
    pairs = write_pairs(SPLITS)
    market = stage("market", "market")
    from_market = {**PREPARE, "settings": {**PREPARE["settings"], "input": "@market"}}
    with pytest.raises(InputError, match=r"stage market writes the logs and has not run.*--pairs RUN"):
        plan([market, from_market, ask])
    with pytest.raises(InputError, match="logs: no such file or directory"):
        plan([PREPARE, ask])
    with pytest.raises(InputError, match="nowhere: no such file or directory"):
        plan([PREPARE, ask], pairs=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="neither a shipped GPU"):
        plan([PREPARE, ask], pairs=pairs, hardware={"gpu": "abacus"})
    with pytest.raises(ConfigError, match="unknown job 'pray'"):
        plan([stage("a", "pray")])
    with pytest.raises(InputError, match="nothing: no such file or directory"):
        plan([PREPARE, ask], pairs=pairs, rationales=str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="hf download some-owner/never-published"):
        plan([PREPARE, stage("ask", "annotate", **ANNOTATE, model="some-owner/never-published")], pairs=pairs)
    scratch = stage("base", "dapt", corpus="@prepare", scratch={})
    with pytest.raises(InputError, match=r"stage base: trains a new model and tokenizer.*run it first"):
        plan([PREPARE, scratch, stage("ask", "annotate", **ANNOTATE, model="@base/model")], pairs=pairs)
    (Path(pairs) / "config.yaml").write_text("job: prepare")
    with pytest.raises(InputError, match="unfinished"):
        plan([PREPARE, ask], pairs=pairs)
