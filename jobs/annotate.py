"""Pairs x perspectives x samples -> rationales: the teacher reasons about every pair.

    python -m jobs.annotate --config FILE --output runs/annotate --pairs runs/prepare

Each unit of `pairs_per_unit` pairs becomes one file when all of its answers are in; a rerun does the missing units.
With `--replay true` a finished run asks its rejected requests once more.
"""

import uuid
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from raylib import tables
from raylib.annotation.fingerprint import annotation_facts, check_adapter, check_model, refuse_mixture
from raylib.annotation.replay import replay_number
from raylib.annotation.requests import Sampling
from raylib.annotation.settings import EndpointSection, EngineSection, LimitsSection
from raylib.annotation.units import plan_units
from raylib.config import JobConfig, main
from raylib.labels import LabelSchema
from raylib.models import resolve_model
from raylib.prompts import PERSPECTIVES, load_perspective
from raylib.ray_session import ray_session
from raylib.runs import Run, require_done


class AnnotateConfig(JobConfig):
    """Let the teacher answer every pair from every perspective, several times."""

    adjustable: ClassVar[tuple[str, ...]] = ("replay", "limits", "engine.num_engines", "engine.num_cpus")

    output: str = Field(description="run directory of the rationales table")
    pairs: str = Field(description="run directory of the pairs table (jobs.prepare)")
    label_schema: str = Field("marketplace6", description="shipped schema or YAML file")
    model: str = Field("embedded", description="model directory, Hugging Face id, or `embedded`")
    adapter: str | None = Field(None, description="directory of a LoRA adapter (jobs.sft, jobs.dpo); null = none")
    perspectives: list[str] = Field(list(PERSPECTIVES), min_length=1, description="shipped perspectives or YAML files")
    samples: int = Field(5, ge=1, description="answers a perspective a pair (arXiv 2601.21611, section 4: 5)")
    splits: list[Literal["train", "dev", "test"]] = Field(["train"], min_length=1, description="splits to annotate")
    max_pairs: int | None = Field(None, ge=1, description="pairs, drawn by hash of pair_id; null = all")
    num_few_shots: int = Field(3, ge=0, description="examples in the prompt; ours, published nowhere")
    temperature: float = Field(0.7, ge=0, description="0 = greedy (arXiv 2601.21611, section 4: 0.7)")
    top_p: float = Field(0.99, gt=0, le=1, description="nucleus (arXiv 2601.21611, section 4: 0.99)")
    top_k: int = Field(50, ge=0, description="likeliest tokens to draw from, 0 = all (section 4: 50)")
    max_tokens: int = Field(256, ge=1, description="tokens of an answer at most")
    seed: int = Field(0, description="with pair, perspective and sample it gives each answer's own seed")
    pairs_per_unit: int = Field(128, ge=1, description="pairs a file: what a lost engine has to do again")
    engine: EngineSection = Field(EngineSection(), description="the vLLM engines")
    endpoint: EndpointSection | None = Field(None, description="answers in place of vLLM; null = vLLM")
    limits: LimitsSection = Field(LimitsSection(), description="retries, error budget, watchdog")
    replay: bool = Field(False, description="ask the rejected requests of a finished run again, with new seeds")

    @model_validator(mode="after")
    def _consistent(self) -> "AnnotateConfig":
        if self.temperature == 0 and self.samples > 1:
            raise ValueError("temperature 0 gives the same answer every time: set samples to 1")
        if self.engine.tensor_parallel_size > max(self.engine.num_gpus, 1):
            raise ValueError("engine.tensor_parallel_size is larger than engine.num_gpus")
        if self.endpoint and self.adapter:
            raise ValueError("adapter: an endpoint serves adapters under model names; set endpoint.model to it")
        return self


def run(config: AnnotateConfig) -> dict[str, Any]:
    """Annotate; returns the metrics. requests in = rows out + rejected by reason."""
    run = Run(config.output, "annotate", config)
    replay = replay_number(run, config.replay)
    if run.is_done:
        return run.metrics()
    schema = LabelSchema.load(config.label_schema)
    perspectives = tuple(load_perspective(name) for name in config.perspectives)
    for perspective in perspectives:
        perspective.check(schema, config.num_few_shots)
    model, adapter = resolve_model(config.model), config.adapter and str(Path(config.adapter).absolute())
    if config.endpoint:
        model = f"{config.endpoint.base_url} {config.endpoint.model}"
    else:
        check_model(model, config.engine.max_model_len)
    if adapter:
        check_adapter(adapter)
    require_done(config.pairs)
    for file in tables.list_parquet(config.pairs):
        tables.check_columns(tables.open_parquet(file).schema_arrow, tables.PAIRS, file)
    plan = plan_units(config.pairs, config.splits, config.max_pairs, config.pairs_per_unit)
    classes = schema.names if (config.endpoint or config.engine).label_probs else ()
    sampling = Sampling(config.temperature, config.top_p, config.top_k, config.max_tokens, config.seed, classes)
    facts = annotation_facts(
        model, adapter, schema, perspectives, config.num_few_shots, vars(sampling), config.engine.dtype
    )
    refuse_mixture(run, facts, config.pairs)
    run.write_provenance(inputs={"pairs": config.pairs}, **facts)

    from raylib.annotation.dispatch import annotate_units
    from raylib.annotation.open_units import AnnotationTask

    task = AnnotationTask(
        output=tables.absolute_uri(run.uri),
        plan=plan,
        schema=schema,
        perspectives=perspectives,
        samples=config.samples,
        num_few_shots=config.num_few_shots,
        sampling=sampling,
        max_attempts=config.limits.max_attempts if config.temperature else 1,  # greedy says the same every time
        engine=config.endpoint.resolve() if config.endpoint else config.engine.resolve(model, adapter),
        fingerprint=facts["fingerprint"],
        driver=uuid.uuid4().hex,
        replay=replay,
    )
    with ray_session():
        limits = config.limits.resolve()
        progress = annotate_units(task, config.engine.num_engines, config.engine.num_cpus, limits)
    return run.finish(
        rows_in=plan.num_pairs * len(perspectives) * config.samples,
        rows_out=progress.total.rows_out,
        rejected=progress.total.rejected,
        skipped={},
        **progress.facts(),
    )


if __name__ == "__main__":
    main(AnnotateConfig, run, "jobs.annotate")
