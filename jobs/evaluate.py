"""Measure students and teachers against gold labels, and write a report.

    python -m jobs.evaluate --config FILE
    python -m jobs.evaluate --output runs/evaluate --pairs runs/pairs --label_schema esci \\
        --students '{bert: runs/distill-bert, lrkd-gat: runs/distill-gat}'

Writes metrics.json (every figure) and report.html (self-contained), and prints one table.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from raylib.config import JobConfig, main


class EvaluateConfig(JobConfig):
    """Evaluate students, baselines and teachers on the judged pairs of one split (METHOD: evaluation)."""

    output: str = Field(description="run directory to write")
    pairs: str = Field(description="run directory of jobs.prepare")
    label_schema: str = Field(description="name of a shipped label schema, or path of a YAML file")
    split: Literal["train", "dev", "test"] = Field("test", description="split on which students are measured")
    students: dict[str, str | Annotated[list[str], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="name -> run directory with a scores table (jobs.distill), or several whose mean is one student",
    )
    teachers: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(
        default_factory=dict, description="name -> run directories of jobs.annotate by that teacher, in report order"
    )
    runs: dict[str, str] = Field(
        default_factory=dict, description="name -> any finished run directory, for the report's plot of rejected rows"
    )
    num_bootstrap: int = Field(1000, ge=100, description="bootstrap replicates (queries drawn with replacement) [ours]")
    seed: int = Field(0, ge=0, description="seed of the bootstrap")


def run(config: EvaluateConfig) -> dict[str, Any]:
    """Evaluate; returns the metrics."""
    from raylib.evaluation.evaluate import evaluate
    from raylib.evaluation.report import render, text_table
    from raylib.labels import LabelSchema
    from raylib.runs import Run, require_done

    schema = LabelSchema.load(config.label_schema)
    directory = Run(config.output, "evaluate", config)
    if directory.is_done:
        return directory.metrics()
    teacher_runs = {f"teachers.{name}.{i}": uri for name, uris in config.teachers.items() for i, uri in enumerate(uris)}
    students = {name: [uris] if isinstance(uris, str) else uris for name, uris in config.students.items()}
    student_runs = {f"students.{name}.{i}": uri for name, uris in students.items() for i, uri in enumerate(uris)}
    inputs = {
        "pairs": config.pairs,
        **student_runs,
        **teacher_runs,
        **{f"runs.{name}": uri for name, uri in config.runs.items()},
    }
    for uri in inputs.values():
        require_done(uri)
    measured, skipped = evaluate(
        config.pairs,
        schema,
        config.split,
        config.students,
        config.teachers,
        config.runs,
        config.num_bootstrap,
        config.seed,
    )
    directory.write_provenance(inputs, seed=config.seed, num_bootstrap=config.num_bootstrap)
    directory.write_text("report.html", render(measured, json.loads(directory.read_text("provenance.json"))))
    rows_out = measured["num_pairs"]
    metrics = directory.finish(rows_out + sum(skipped.values()), rows_out, {}, skipped, **measured)
    print(text_table(metrics))
    print(f"report: {config.output}/report.html")
    return metrics


if __name__ == "__main__":
    main(EvaluateConfig, run, "jobs.evaluate")
