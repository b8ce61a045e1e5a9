"""Continued pre-training of a base model on the platform's own text, or pre-training of a small one from nothing.

    python -m jobs.dapt --config configs/dapt-base.yaml --corpus runs/corpus --output runs/base

Reads a table of traces (jobs.market), of texts (column `text`) or of pairs (jobs.prepare); writes `model/`, a
Hugging Face model directory with bfloat16 weights.
"""

import itertools
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from raylib import tables
from raylib.config import JobConfig, main
from raylib.errors import InputError
from raylib.models import model_fingerprint, resolve_model
from raylib.ray_deepspeed import Workers
from raylib.runs import Run, require_done
from raylib.teacher.corpus import TraceDocuments, kind_of, row_texts, text_documents
from raylib.teacher.datasets import LANGUAGE, Rejected, write_examples
from raylib.teacher.scratch import Scratch, train_tokenizer

TOKENIZER_ROWS = 100_000  # enough to rank the merges; more only costs time


class DaptConfig(JobConfig):
    """Continued pre-training (arXiv 2510.11056, step 1); its settings are unpublished, the defaults are ours."""

    adjustable: ClassVar[tuple[str, ...]] = ("workers", "trackers")

    output: str = Field(description="run directory to write")
    corpus: str = Field(description="run directory of the table to train on: traces, texts or pairs")
    model: str | None = Field(None, description="base model: directory, Hugging Face id or `embedded`")
    scratch: Scratch | None = Field(None, description="train a new model of this size instead of `model`")
    is_answers_only: bool = Field(False, description="traces only: count the loss on the answers alone")
    max_length: int = Field(1024, ge=16, description="tokens of a document")
    num_epochs: float = Field(1.0, gt=0, description="passes over the corpus")
    global_batch: int = Field(32, ge=1, description="documents of one optimizer step, over all workers")
    learning_rate: float = Field(1e-5, gt=0, description="peak of the cosine schedule; a new model takes about 3e-3")
    warmup_ratio: float = Field(0.03, ge=0, lt=1, description="share of the steps with rising learning rate")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay")
    seed: int = Field(0, ge=0, description="seed of initialisation and of the order of documents")
    trackers: list[Literal["tensorboard", "mlflow"]] = Field(
        ["tensorboard"], description="where losses stream to; OUTPUT/tensorboard, and MLFLOW_TRACKING_URI's server"
    )
    workers: Workers = Field(Workers(), description="how training is spread over the cluster")

    @model_validator(mode="after")
    def _one_start(self) -> "DaptConfig":
        if (self.model is None) == (self.scratch is None):
            raise ValueError("give exactly one of model and scratch")
        self.workers.accumulation(self.global_batch)
        return self


def run(config: DaptConfig) -> dict[str, Any]:
    """Train and return the run's metrics."""
    run = Run(config.output, "dapt", config)
    if run.is_done:
        return run.metrics()
    require_done(config.corpus)
    files = tables.list_parquet(config.corpus)
    kind = kind_of(tables.open_parquet(files[0]).schema_arrow.names, config.corpus)
    rows_in = sum(tables.open_parquet(file).metadata.num_rows for file in files)
    if not rows_in:
        raise InputError(f"{config.corpus}: the table is empty; there is nothing to train on")
    model = resolve_model(config.model) if config.model else None

    from raylib.teacher.encoding import load_tokenizer
    from raylib.teacher.launch import launch
    from raylib.teacher.training import dapt_loop

    def rows() -> Any:
        return (
            row for file in files for batch in tables.open_parquet(file).iter_batches() for row in batch.to_pylist()
        )

    facts = {"base_fingerprint": model and model_fingerprint(model)}
    run.refuse_changed(facts, {"corpus": config.corpus})
    storage = run.path("training")
    if config.scratch:
        texts = row_texts(kind, itertools.islice(rows(), TOKENIZER_ROWS))
        train_tokenizer(texts, config.scratch.vocab_size, config.max_length, storage / "tokenizer")
    tokenizer_path = model or str(storage / "tokenizer")
    tokenizer = load_tokenizer(tokenizer_path)
    rejected: list[Rejected] = []
    if kind == "traces":
        packer = TraceDocuments(tokenizer, config.max_length, config.is_answers_only, rejected)
        documents = packer.documents(rows())
    else:
        documents = text_documents(tokenizer, row_texts(kind, rows()), config.max_length, rejected)
    counts = write_examples(storage / "examples.parquet", LANGUAGE, documents)
    reasons = run.write_rejected("dapt", rejected)
    run.write_provenance({"corpus": config.corpus}, kind=kind, base=model, **facts)
    settings = {
        **config.model_dump(exclude={"output", "corpus", "workers"}),
        "model": model,
        "tokenizer": tokenizer_path,
        "examples": str(storage / "examples.parquet"),
        "output": str(run.path("model")),
    }
    measured = launch(dapt_loop, settings, config.workers, storage, counts)
    return run.finish(rows_in, rows_in - len(rejected), reasons, {}, **measured)


if __name__ == "__main__":
    main(DaptConfig, run, "jobs.dapt")
