"""All stages from one file, each skipped when it is done.

    python -m jobs.pipeline --config configs/demo.yaml

Stage NAME writes to OUTPUT/NAME; a setting `"@NAME"` or `"@NAME/sub"` means the output of stage NAME, `"@input"` the
pipeline's own input. All settings of all stages are checked before the first one starts.
"""

import json
import os
import platform
import shutil
import time
from pathlib import Path
from typing import Any

import psutil
from pydantic import Field

from jobs import annotate, curate, dapt, distill, dpo, embed, evaluate, market, negatives, prepare, serve, sft
from raylib import tables
from raylib.config import JobConfig, Section, main
from raylib.errors import ConfigError
from raylib.memory import PeakMemory
from raylib.ray_session import ray_session
from raylib.runs import commit, package_versions

JOBS: dict[str, tuple[type[JobConfig], Any]] = {
    "market": (market.MarketConfig, market.run),
    "prepare": (prepare.PrepareConfig, prepare.run),
    "negatives": (negatives.NegativesConfig, negatives.run),
    "annotate": (annotate.AnnotateConfig, annotate.run),
    "curate": (curate.CurateConfig, curate.run),
    "dapt": (dapt.DaptConfig, dapt.run),
    "sft": (sft.SftConfig, sft.run),
    "dpo": (dpo.DpoConfig, dpo.run),
    "embed": (embed.EmbedConfig, embed.run),
    "distill": (distill.DistillConfig, distill.run),
    "evaluate": (evaluate.EvaluateConfig, evaluate.run),
    "serve": (serve.ServeConfig, serve.run),
}


class Stage(Section):
    """One job of the pipeline."""

    name: str = Field(pattern=r"^[\w-]+$", description="name of the stage and of its run directory")
    job: str = Field(description="one of the jobs, e.g. annotate")
    settings: dict[str, Any] = Field({}, description="the job's settings without `output`")


class PipelineConfig(JobConfig):
    """Run a list of jobs one after the other; finished stages are skipped, an interrupted one resumes."""

    output: str = Field(description="directory (local path) that holds every stage's run directory")
    input: str | None = Field(
        None, description="the logs: file or directory, local or object store; null = none needed"
    )
    num_cpus: int | None = Field(None, ge=1, description="cores for a local Ray; null = all of this machine")
    stages: list[Stage] = Field(min_length=1, description="the stages in order")


def run(config: PipelineConfig) -> dict[str, Any]:
    """Run the stages in order; returns and writes OUTPUT/summary.json after every stage."""
    plan = resolve_stages(config)
    root = Path(config.output)
    root.mkdir(parents=True, exist_ok=True)
    summary_path = root / "summary.json"
    earlier = json.loads(summary_path.read_text())["stages"] if summary_path.exists() else {}
    summary: dict[str, Any] = {
        "commit": commit(),
        "versions": package_versions(),
        "machine": {
            "cores": os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
            "system": platform.platform(),
        },
        "stages": {},
    }
    with ray_session(config.num_cpus):
        for stage, stage_config in plan:
            is_done = (root / stage.name / "_SUCCESS").exists()
            started_s = time.time()
            with PeakMemory() as memory:
                metrics = JOBS[stage.job][1](stage_config)
            cost = {"stage_s": round(time.time() - started_s, 1), "peak_memory_bytes": memory.peak_bytes}
            if is_done:
                cost = {name: earlier.get(stage.name, {}).get(name) for name in cost}
            summary["stages"][stage.name] = {**metrics, **cost}
            print(stage_table(stage.name, summary["stages"][stage.name], is_done), flush=True)
            if stage.job == "evaluate":
                shutil.copyfile(root / stage.name / "report.html", root / "report.html")
            tables.write_text(str(summary_path), json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    total_s = sum(stage["stage_s"] or 0.0 for stage in summary["stages"].values())
    peak = max(stage["peak_memory_bytes"] or 0 for stage in summary["stages"].values())
    print(f"\n{len(plan)} stages, {total_s:.0f} s, peak memory {peak / 2**30:.1f} GiB")
    print(
        f"every figure: {summary_path}" + (f"\nreport: {root}/report.html" if (root / "report.html").exists() else "")
    )
    return summary


def resolve_stages(config: PipelineConfig) -> list[tuple[Stage, JobConfig]]:
    """Each stage with its validated configuration; raises ConfigError naming every wrong setting of every stage."""
    resolved: list[tuple[Stage, JobConfig]] = []
    mistakes: list[str] = []
    paths = {"input": config.input} if config.input else {}
    for stage in config.stages:
        where = f"stage {stage.name}"
        if stage.job not in JOBS:
            mistakes.append(f"{where}: unknown job {stage.job!r}; jobs: {', '.join(JOBS)}")
        elif stage.name in paths or stage.name == "input":
            mistakes.append(f"{where}: the name is used twice or reserved")
        else:
            try:
                settings = _with_references(stage.settings, paths)
                settings["output"] = f"{config.output}/{stage.name}"
                resolved.append((stage, JOBS[stage.job][0].from_mapping(settings, where)))
            except ConfigError as error:
                mistakes.append(str(error))
        paths.setdefault(stage.name, f"{config.output}/{stage.name}")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return resolved


def _with_references(value: Any, paths: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _with_references(inner, paths) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_references(inner, paths) for inner in value]
    if isinstance(value, str) and value.startswith("@"):
        name, slash, rest = value[1:].partition("/")
        if name == "input" and name not in paths:
            raise ConfigError(f"{value}: the pipeline has no input; say --input PATH")
        if name not in paths:
            raise ConfigError(f"{value}: no earlier stage has this name; earlier stages: {', '.join(paths) or 'none'}")
        return paths[name] + slash + rest
    return value


def stage_table(name: str, metrics: dict[str, Any], is_done: bool) -> str:
    """The lines printed after a stage: rows, rejects by reason, seconds, memory."""
    rows = [("rows in", f"{metrics['rows_in']:,}"), ("rows out", f"{metrics['rows_out']:,}")]
    for kind in ("rejected", "skipped"):
        rows += [(f"{kind}: {reason}", f"{count:,}") for reason, count in sorted(metrics[kind].items())]
    if "parity" in metrics:
        rows.append(("largest difference of served and offline", f"{metrics['parity']['max_abs_difference']:.1e}"))
    if metrics["stage_s"] is not None:
        rows.append(("seconds", f"{metrics['stage_s']:.1f}"))
        rows.append(("peak memory", f"{metrics['peak_memory_bytes'] / 2**30:.2f} GiB"))
    width = max(len(label) for label, _ in rows)
    title = f"── {name}{' (done before)' if is_done else ''} "
    return "\n" + title.ljust(60, "─") + "\n" + "\n".join(f"  {label:<{width}}  {value:>14}" for label, value in rows)


if __name__ == "__main__":
    main(PipelineConfig, run, "jobs.pipeline")
