"""Supervised fine-tuning of the teacher: one LoRA adapter on (unified prompt -> rationale, label).

    python -m jobs.sft --model embedded --sft runs/curate --output runs/sft

Reads the `sft` table of jobs.curate; writes `adapter/`, which vLLM loads on the same base model.
"""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from raylib import tables
from raylib.config import JobConfig, main
from raylib.errors import InputError
from raylib.models import model_fingerprint, resolve_model
from raylib.ray_deepspeed import Workers
from raylib.runs import Run, require_done
from raylib.teacher.adapters import Lora, write_base
from raylib.teacher.datasets import LANGUAGE, Rejected, encode_rows, write_examples


class SftConfig(JobConfig):
    """Supervised fine-tuning; defaults as published in arXiv 2601.21611, section 4."""

    adjustable: ClassVar[tuple[str, ...]] = ("workers", "trackers")

    output: str = Field(description="run directory to write")
    sft: str = Field(description="table of training conversations: the run directory of jobs.curate, or its sub folder")
    model: str = Field(description="base model: directory, Hugging Face id or `embedded`")
    max_length: int = Field(3072, ge=16, description="tokens of prompt and answer; longer rows are rejected")
    num_epochs: float = Field(3.0, gt=0, description="passes over the table")
    global_batch: int = Field(32, ge=1, description="rows of one optimizer step, over all workers")
    learning_rate: float = Field(5e-5, gt=0, description="peak of the cosine schedule")
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="share of the steps with rising learning rate")
    order: Literal["random", "short_to_long", "similar_length"] = Field(
        "random",
        description="of rows; short_to_long: a curriculum by the answer's tokens (ProgressiveCoT, after arXiv "
        "2503.09223); similar_length: rows of one batch are about as long, so that less is padded",
    )
    seed: int = Field(0, ge=0, description="seed of the adapter's initialisation and of the order of rows")
    lora: Lora = Field(Lora(), description="the adapter")
    trackers: list[Literal["tensorboard", "mlflow"]] = Field(
        ["tensorboard"], description="where losses stream to; OUTPUT/tensorboard, and MLFLOW_TRACKING_URI's server"
    )
    workers: Workers = Field(Workers(), description="how training is spread over the cluster")

    @model_validator(mode="after")
    def _batches(self) -> "SftConfig":
        self.workers.accumulation(self.global_batch)
        return self


def run(config: SftConfig) -> dict[str, Any]:
    """Train and return the run's metrics."""
    run = Run(config.output, "sft", config)
    if run.is_done:
        return run.metrics()
    require_done(config.sft)
    model = resolve_model(config.model)
    rows = tables.read_table(config.sft, tables.SFT).to_pylist()
    if not rows:
        raise InputError(f"{config.sft}: the table is empty; there is nothing to train on (see the run's rejected/)")

    from raylib.teacher.encoding import load_tokenizer, num_answer_tokens, sft_example
    from raylib.teacher.launch import launch
    from raylib.teacher.training import sft_loop

    tokenizer = load_tokenizer(model)
    facts = {"base_fingerprint": model_fingerprint(model)}
    run.refuse_changed(facts, {"sft": config.sft})
    storage = run.path("training")
    rejected: list[Rejected] = []
    examples = encode_rows(
        rows, lambda row: sft_example(tokenizer, row["prompt"], row["completion"]), config.max_length, "sft", rejected
    )
    if config.order == "short_to_long":
        examples = iter(sorted(examples, key=num_answer_tokens))
    counts = write_examples(storage / "examples.parquet", LANGUAGE, examples)
    reasons = run.write_rejected("sft", rejected)
    run.write_provenance({"sft": config.sft}, base=model, **facts)
    settings = {
        **config.model_dump(exclude={"output", "sft", "workers"}),
        "model": model,
        "examples": str(storage / "examples.parquet"),
        "output": str(run.path("adapter")),
    }
    measured = launch(sft_loop, settings, config.workers, storage, counts)
    write_base(run.path("adapter"), model)
    return run.finish(len(rows), counts["num_examples"], reasons, {}, **measured)


if __name__ == "__main__":
    main(SftConfig, run, "jobs.sft")
