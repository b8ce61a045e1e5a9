"""Search logs -> unique pairs, split by query.

    python -m jobs.prepare --input runs/market --label_schema marketplace6 --output runs/pairs

Reads plain log files (`format: logs`) or the published Amazon ESCI release (`format: esci`). Bad rows go to
`rejected/` with a reason; docs/data.md lists the reasons and how rows are counted.
"""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from raylib.config import JobConfig, main
from raylib.errors import ConfigError, InputError
from raylib.labels import LabelSchema
from raylib.logs.budget import MIN_MB
from raylib.ray_session import ray_session
from raylib.runs import Run, require_done


class PrepareConfig(JobConfig):
    """Search logs -> unique pairs, split by query."""

    output: str = Field(description="run directory to write; all nodes of a cluster need access to it")
    input: str = Field(description="directory of *.parquet logs (or one file); for esci the directory of its two files")
    format: Literal["logs", "esci"] = Field("logs", description="plain logs, or the published ESCI release")
    label_schema: str = Field(description="name of a shipped label schema or path of a YAML file")
    num_buckets: int = Field(64, ge=1, le=100_000, description="files of the table, the units of resuming later jobs")
    task_memory_mb: int = Field(
        512, ge=MIN_MB, description="memory of one task, its libraries included (MiB); one task a core runs at a time"
    )
    dev_share: float = Field(0.05, ge=0.0, lt=1.0, description="share of queries (esci: of the train queries) for dev")
    test_share: float = Field(
        0.1, ge=0.0, lt=1.0, description="share of queries for test; esci brings its own test split"
    )
    max_query_chars: int = Field(512, ge=1, description="longer queries are rejected (characters)")
    max_title_chars: int = Field(
        2000, ge=1, description="rows with a longer title or other text are rejected (characters)"
    )
    on_conflict: Literal["majority", "reject"] = Field(
        "majority", description="contradicting gold labels of a pair: the one with most rows, or reject the pair"
    )
    on_near_query: Literal["reject", "count"] = Field(
        "reject",
        description="near-identical to a query of dev or test: reject the train (dev) pairs, or only count; "
        "published splits are only counted",
    )
    on_bad_file: Literal["fail", "skip"] = Field("fail", description="an unreadable file ends the run, or is counted")
    seed: int = Field(
        0, ge=0, lt=2**63, description="seed of the split; the same query is in the same split for one seed"
    )

    @model_validator(mode="after")
    def _leaves_train(self) -> Self:
        if self.dev_share + self.test_share >= 1.0:
            raise ValueError(f"dev_share + test_share = {self.dev_share + self.test_share:g} leaves nothing for train")
        return self


def run(config: PrepareConfig) -> dict[str, Any]:
    """Write the pairs table; returns the metrics."""
    schema = LabelSchema.load(config.label_schema)
    if config.format == "esci" and any(schema.canonical(code) is None for code in "ESCI"):
        raise ConfigError(f"label_schema {config.label_schema}: has no class with code E, S, C or I, which esci needs")
    run = Run(config.output, "prepare", config)
    from raylib.logs.shuffle import remove_map_outputs, shuffle
    from raylib.logs.source import plan_esci, plan_logs

    if run.is_done:
        remove_map_outputs(run.uri)
        return run.metrics()
    require_done(config.input)
    plan = plan_esci(config.input) if config.format == "esci" else plan_logs(config.input, config.on_bad_file)
    run.write_provenance({"logs": config.input})
    with ray_session():
        counts = shuffle(
            run.uri,
            plan,
            schema,
            num_buckets=config.num_buckets,
            task_memory_mb=config.task_memory_mb,
            max_query_chars=config.max_query_chars,
            max_title_chars=config.max_title_chars,
            on_conflict=config.on_conflict,
            on_near_query=config.on_near_query,
            on_bad_file=config.on_bad_file,
            dev_share=config.dev_share,
            test_share=config.test_share,
            seed=config.seed,
        )
    if not counts["rows_out"]:
        raise InputError(
            f"{config.input}: no good row among {counts['rows_in']}: {counts['rejected']}; see {run.uri}/rejected"
        )
    metrics = run.finish(**counts)
    remove_map_outputs(run.uri)
    print(f"prepare: {metrics['rows_in']} rows -> {metrics['num_pairs']} pairs in {metrics['wall_s']} s", flush=True)
    return metrics


if __name__ == "__main__":
    main(PrepareConfig, run, "jobs.prepare")
