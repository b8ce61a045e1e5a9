"""What a pipeline will need: tokens, GPU hours, memory, money. Nothing is started.

    python -m jobs.plan --pipeline configs/qwen3-14b.yaml --input LOGS --output runs/plan --hardware.num_gpus 8

Reads the pipeline's settings and a sample of its real input; prints the plan and writes it to OUTPUT/plan.md.
"""

from typing import Any, Literal

from pydantic import Field

from jobs.pipeline import PipelineConfig, resolve_stages
from raylib.config import JobConfig, Section, main, read_yaml
from raylib.planning.context import Assumptions, Context, Stage
from raylib.planning.hardware import Hardware, load_gpu
from raylib.planning.report import plan_markdown, totals
from raylib.planning.stages import plan_stage
from raylib.runs import Run


class HardwareSection(Section):
    """The GPUs to plan for."""

    gpu: str = Field("H100-80GB", description="one of raylib/planning/gpus.yaml, or a YAML file with the same keys")
    num_gpus: int = Field(8, ge=1, description="GPUs at hand")
    price_per_gpu_hour: float | None = Field(None, ge=0, description="in your currency; null = no costs")
    compute_efficiency: float = Field(0.4, gt=0, le=1, description="of the data sheet's FLOP/s; ours, measure your own")
    bandwidth_efficiency: float = Field(0.6, gt=0, le=1, description="of the data sheet's bandwidth; ours, likewise")


class ThroughputSection(Section):
    """Measured rates; each replaces the estimate from the data sheet, on CPUs it is the only one."""

    generated_tokens_per_s: float | None = Field(None, gt=0, description="generated tokens/s of one engine")
    trained_tokens_per_s: dict[Literal["dapt", "sft", "dpo", "distill"], float] = Field(
        {}, description="job: tokens/s of all its processes (`tokens_per_s` in the metrics of dapt, sft and dpo)"
    )


class AssumptionSection(Section):
    """What no sample of the input can tell."""

    answer_tokens: float | None = Field(None, gt=0, description="tokens of an answer; null = as the prompts' examples")
    sft_share: float = Field(0.4, gt=0, le=1, description="share of the answers on judged train pairs that sft keeps")
    preference_share: float = Field(
        0.3, gt=0, le=1, description="share of (judged train pair, perspective) that gives a preference"
    )


class PlanConfig(JobConfig):
    """Plan a pipeline before it starts: tokens, memory, GPU hours and money of each stage."""

    output: str = Field(description="run directory of the plan: plan.md, metrics.json")
    pipeline: str = Field(description="YAML file of jobs.pipeline")
    input: str | None = Field(None, description="the pipeline's input; null = as its file says")
    pairs: str | None = Field(
        None, description="a finished run of jobs.prepare to plan from; null = the pipeline's own"
    )
    rationales: str | list[str] = Field([], description="finished runs of jobs.annotate: answers will be as long")
    sample_rows: int = Field(
        10_000,
        ge=1,
        description="pairs whose prompts are counted (of logs, 50 times as many rows are read); all = exact",
    )
    hardware: HardwareSection = Field(HardwareSection(), description="the GPUs")
    throughput: ThroughputSection = Field(ThroughputSection(), description="measured rates")
    assumptions: AssumptionSection = Field(AssumptionSection(), description="what cannot be known before")


def run(config: PlanConfig) -> dict[str, Any]:
    """Plan; returns the metrics: `stages` has the facts of each planned stage."""
    values = read_yaml(config.pipeline)
    if config.input is not None and isinstance(values, dict):
        values["input"] = config.input
    pipeline = PipelineConfig.from_mapping(values, config.pipeline)
    stages = [Stage(stage.name, stage.job, settings) for stage, settings in resolve_stages(pipeline)]
    hardware, gpu = config.hardware, load_gpu(config.hardware.gpu)
    run = Run(config.output, "plan", config)
    if run.is_done:
        print(run.read_text("plan.md"), end="")
        return run.metrics()
    context = Context(
        stages,
        Hardware(
            hardware.num_gpus,
            gpu.memory_gb * 1e9,
            gpu.tflops * 1e12 * hardware.compute_efficiency,
            gpu.bandwidth_gb_s * 1e9 * hardware.bandwidth_efficiency,
            hardware.price_per_gpu_hour,
        ),
        Assumptions(**config.assumptions.model_dump(), **config.throughput.model_dump()),
        config.sample_rows,
        config.pairs,
        (config.rationales,) if isinstance(config.rationales, str) else tuple(config.rationales),
    )
    context.note(
        f"GPUs reach {hardware.compute_efficiency:.0%} of the data sheet's FLOP/s and "
        f"{hardware.bandwidth_efficiency:.0%} of its bandwidth, unless throughput gives a measured rate"
    )
    plans = {stage.name: facts for stage in stages if (facts := plan_stage(context, stage))}
    not_planned = [stage.name for stage in stages if stage.name not in plans]
    title = f"Plan of {config.pipeline} on {hardware.num_gpus} x {hardware.gpu}"
    has_price = hardware.price_per_gpu_hour is not None
    text = plan_markdown(title, plans, not_planned, context.notes, has_price)
    run.write_text("plan.md", text)
    print(text, end="", flush=True)
    run.write_provenance({"pairs": config.pairs} if config.pairs else {})
    skipped = {"not_planned": len(not_planned)}
    return run.finish(
        len(stages), len(plans), {}, skipped, stages=plans, totals=totals(plans), assumptions=context.notes
    )


if __name__ == "__main__":
    main(PlanConfig, run, "jobs.plan")
