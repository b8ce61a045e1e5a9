"""Hours, money and memory of a stage's processes, as facts; what does not fit is said in the plan's notes."""

from typing import Any

from raylib.planning.context import Context, Stage

Facts = dict[str, Any]


def process_memory(context: Context, stage: Stage, parts: dict[str, float], use_gpu: bool) -> Facts:
    """Memory of one process, and a note when a GPU cannot hold it."""
    total = sum(parts.values())
    limit = context.hardware.memory_bytes
    if use_gpu and total > limit:
        context.note(
            f"{stage.name}: one process needs {total / 2**30:.1f} GiB, a GPU has {limit / 2**30:.1f}: it does NOT FIT; "
            "raise workers.zero_stage or num_workers, or lower the batch of a process or max_length"
        )
    return {
        "process_memory_bytes": round(total),
        **{f"process_{name}_bytes": round(size) for name, size in parts.items()},
    }


def training_hours(context: Context, stage: Stage, flops: float, tokens: int) -> Facts:
    """Hours of training, by a measured rate of the job where one is given, else by its FLOPs on GPUs."""
    workers = stage.config.workers
    rate = context.assumptions.trained_tokens_per_s.get(stage.job)
    if rate:
        seconds = tokens / rate * workers.num_workers
    else:
        seconds = flops / context.hardware.flops_per_s if workers.use_gpu else None
    return work_hours(context, stage, seconds, float(workers.use_gpu), workers.num_workers)


def work_hours(context: Context, stage: Stage, seconds: float | None, gpus_each: float, num_processes: int) -> Facts:
    """GPU hours, hours and money of work that takes one process `seconds` and is spread over as many as fit.

    None is work on CPUs, whose speed no data sheet tells: it has no hours.
    """
    hardware = context.hardware
    most = int(hardware.num_gpus / gpus_each) if gpus_each else num_processes
    running = min(num_processes, most)
    facts: Facts = {"processes": running}
    if gpus_each:
        facts = {"gpus_per_process": gpus_each, "processes_that_fit": most, "processes": running}
    if running < num_processes:
        context.note(
            f"{stage.name}: {num_processes} processes of {gpus_each:g} GPU(s) are configured, but only {running} fit "
            f"{hardware.num_gpus} GPU(s); the hours are those of {running}"
        )
    if seconds is None:
        return facts
    if gpus_each:
        facts["gpu_hours"] = seconds / 3600 * gpus_each
        if hardware.price_per_gpu_hour is not None:
            facts["cost"] = facts["gpu_hours"] * hardware.price_per_gpu_hour
    if running:
        facts["hours"] = seconds / 3600 / running
    return facts
