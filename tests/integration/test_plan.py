"""jobs.plan against what jobs.annotate then uses: the counts in the metrics of a real run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.annotate import AnnotateConfig
from jobs.annotate import run as annotate
from jobs.plan import PlanConfig
from jobs.plan import run as plan


def test_a_plan_counts_the_tokens_that_the_run_uses(write_pairs: Callable[..., str], tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", 40)
    settings: dict[str, Any] = {
        "pairs": pairs,
        "model": "embedded",
        "perspectives": ["user_intent", "business_rule"],
        "samples": 2,
        "max_pairs": 30,
        "num_few_shots": 1,
        "max_tokens": 96,
        "pairs_per_unit": 8,
        "limits": {"max_attempts": 1, "unparsed": 1.0},
        "engine": {
            "enforce_eager": True,
            "dtype": "float32",
            "max_num_seqs": 16,
            "kv_cache_memory_bytes": 64 << 20,
            "max_model_len": 768,
        },
    }
    pipeline = tmp_path / "pipeline.yaml"
    stages = [{"name": "ask", "job": "annotate", "settings": settings}]
    pipeline.write_text(yaml.safe_dump({"output": str(tmp_path / "runs"), "stages": stages}))
    run = annotate(AnnotateConfig.from_mapping({**settings, "output": str(tmp_path / "runs" / "ask")}, "test"))

    def planned(name: str, **changes: Any) -> dict[str, Any]:
        values = {"pipeline": str(pipeline), "output": str(tmp_path / name), **changes}
        facts: dict[str, Any] = plan(PlanConfig.from_mapping(values, "test"))["stages"]["ask"]
        return facts

    facts = planned("plan")
    assert facts["pairs"] == run["num_pairs"] == 30
    assert facts["answers"] == run["rows_in"]
    assert facts["prompt_tokens"] == run["prompt_tokens"]
    assert facts["uncached_prompt_tokens"] == pytest.approx(run["prompt_tokens"] - run["cached_tokens"], rel=0.05)
    measured = planned("measured", rationales=str(tmp_path / "runs" / "ask"))
    assert measured["generated_tokens"] == pytest.approx(run["generated_tokens"], rel=0.05)
    sampled = planned("sampled", sample_rows=20)
    assert sampled["pairs"] == 30
    assert sampled["prompt_tokens"] == pytest.approx(run["prompt_tokens"], rel=0.05)
