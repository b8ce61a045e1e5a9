"""Preference optimisation of the teacher: goes on training the SFT adapter on (chosen, rejected) rationales.

    python -m jobs.dpo --model embedded --adapter runs/sft --preferences runs/curate2 --output runs/dpo

Reads the `preferences` table of jobs.curate and the adapter of jobs.sft; writes `adapter/`, which vLLM loads on the
same base model. The reference policy is the SFT adapter.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from raylib import tables
from raylib.config import JobConfig, main
from raylib.errors import InputError
from raylib.models import model_fingerprint, resolve_model
from raylib.ray_deepspeed import Workers
from raylib.runs import Run, require_done
from raylib.teacher.adapters import check_adapter, lora_of, write_base
from raylib.teacher.datasets import PREFERENCE, Rejected, encode_rows, write_examples


class DpoConfig(JobConfig):
    """Direct preference optimisation; defaults as published in arXiv 2601.21611, section 4."""

    adjustable: ClassVar[tuple[str, ...]] = ("workers", "trackers")

    output: str = Field(description="run directory to write")
    preferences: str = Field(
        description="table of preference pairs: the run directory of jobs.curate, or its sub folder"
    )
    model: str = Field(description="base model of the adapter: directory, Hugging Face id or `embedded`")
    adapter: str = Field(description="run directory of jobs.sft; its adapter is both start and reference")
    beta: float = Field(0.1, gt=0, description="strength of the pull to the reference; unpublished, 0.1 is usual")
    max_length: int = Field(3072, ge=16, description="tokens of prompt and longer answer; longer rows are rejected")
    precompute_reference: bool = Field(
        False, description="compute the reference's log-probabilities once, ahead; saves a forward pass a step"
    )
    num_epochs: float = Field(3.0, gt=0, description="passes over the table")
    global_batch: int = Field(64, ge=1, description="pairs of one optimizer step, over all workers")
    learning_rate: float = Field(5e-6, gt=0, description="peak of the cosine schedule")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description="share of the steps with rising learning rate")
    seed: int = Field(0, ge=0, description="seed of the order of pairs")
    trackers: list[Literal["tensorboard", "mlflow"]] = Field(
        ["tensorboard"], description="where losses stream to; OUTPUT/tensorboard, and MLFLOW_TRACKING_URI's server"
    )
    workers: Workers = Field(Workers(), description="how training is spread over the cluster")

    @model_validator(mode="after")
    def _batches(self) -> "DpoConfig":
        self.workers.accumulation(self.global_batch)
        return self


def run(config: DpoConfig) -> dict[str, Any]:
    """Train and return the run's metrics."""
    run = Run(config.output, "dpo", config)
    if run.is_done:
        return run.metrics()
    require_done(config.preferences)
    require_done(config.adapter)
    model = resolve_model(config.model)
    adapter = Path(config.adapter).absolute() / "adapter"
    check_adapter(adapter, model)
    rows = tables.read_table(config.preferences, tables.PREFERENCES).to_pylist()
    if not rows:
        raise InputError(f"{config.preferences}: the table is empty; there is nothing to train on")

    from raylib.teacher.encoding import dpo_example, load_tokenizer
    from raylib.teacher.launch import launch
    from raylib.teacher.training import dpo_loop

    tokenizer = load_tokenizer(model)
    facts = {"base_fingerprint": model_fingerprint(model), "adapter_fingerprint": model_fingerprint(str(adapter))}
    run.refuse_changed(facts, {"preferences": config.preferences})
    storage = run.path("training")
    rejected: list[Rejected] = []
    examples = encode_rows(
        rows,
        lambda row: dpo_example(tokenizer, row["prompt"], row["chosen"], row["rejected"]),
        config.max_length,
        "dpo",
        rejected,
    )
    counts = write_examples(storage / "examples.parquet", PREFERENCE, examples)
    reasons = run.write_rejected("dpo", rejected)
    run.write_provenance(
        {"preferences": config.preferences, "adapter": str(adapter)},
        base=model,
        **facts,
    )
    settings = {
        **config.model_dump(exclude={"output", "preferences", "workers"}),
        "model": model,
        "adapter": str(adapter),
        "lora": lora_of(adapter),
        "num_adapters": 2,  # the policy and its frozen copy
        "examples": str(storage / "examples.parquet"),
        "output": str(run.path("adapter")),
    }
    measured = launch(dpo_loop, settings, config.workers, storage, counts)
    write_base(run.path("adapter"), model)
    return run.finish(len(rows), counts["num_examples"], reasons, {}, **measured)


if __name__ == "__main__":
    main(DpoConfig, run, "jobs.dpo")
