"""Serve a student over HTTP, after comparing its answers with the offline scores.

    python -m jobs.serve --config FILE
    python -m jobs.serve --output runs/serve --model runs/distill --pairs runs/pairs --scores runs/distill
    curl -s localhost:8000/v1/score -H 'content-type: application/json' \\
        -d '{"query": "red shoes", "locale": "en", "items": [{"item_id": "1", "title": "Red running shoes"}]}'

Serves until SIGTERM or SIGINT, then answers what is in flight and ends. With exit_after_parity it ends after the
comparison, which is then the run's result.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from raylib.config import JobConfig, Section, main


class Replicas(Section):
    """Copies of the student; Ray Serve scales between min and max."""

    min: int = Field(1, ge=1, description="replicas that always run")
    max: int = Field(1, ge=1, description="replicas under load; equal to min: a fixed number")
    num_cpus: float = Field(1.0, gt=0, description="cores of one replica")
    num_gpus: float = Field(0.0, ge=0, description="GPUs of one replica; shares are allowed")
    target_ongoing_requests: float = Field(4.0, gt=0, description="requests in work a replica at which one is added")
    max_ongoing_requests: int = Field(1000, ge=1, description="requests a replica takes, nearly all into its queue")


class ServeConfig(JobConfig):
    """Serve a student: POST /v1/score and /rerank, GET /v1/model, /healthz, /readyz."""

    output: str = Field(description="run directory to write")
    model: str = Field(
        description="run directory of jobs.distill, or a student artifact on a path that all nodes mount"
    )
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(8000, ge=1, le=65535, description="TCP port")
    replicas: Replicas = Replicas()  # type: ignore[call-arg]
    dtype: Literal["float32", "bfloat16", "int8"] = Field(
        "float32", description="of the backbone; bfloat16 differs in digit 3, int8 (CPU) in digit 2: raise tolerance"
    )
    max_items: int = Field(100, ge=1, le=10_000, description="items a request; more is answered with 413")
    max_queued_requests: int = Field(200, ge=1, description="requests that may wait; more are answered with 503")
    batch_tokens: int = Field(8192, ge=1, description="tokens of one batch over all waiting requests")
    deadline_ms: float = Field(
        10_000.0,
        gt=0,
        description="for clients that send no X-Deadline-Ms; what is later is dropped, not computed",
    )
    max_wait_ms: float = Field(
        500.0, gt=0, description="expected wait in a replica's queue above which a request gets 503 and Retry-After"
    )
    drain_s: float = Field(30.0, ge=0, description="time for requests in flight when the server stops, seconds")
    pairs: str | None = Field(None, description="run directory of jobs.prepare, for the comparison")
    scores: str | None = Field(None, description="run directory with the scores table to compare with (jobs.distill)")
    parity_rows: int = Field(200, ge=1, description="pairs to compare")
    tolerance: float = Field(1e-4, ge=0, description="largest allowed difference of a probability")
    exit_after_parity: bool = Field(False, description="end after the comparison instead of serving")
    seed: int = Field(0, ge=0, description="seed of the drawn pairs")

    @model_validator(mode="after")
    def _possible(self) -> "ServeConfig":
        if (self.pairs is None) != (self.scores is None):
            raise ValueError("pairs and scores go together: both for the comparison, or neither")
        if self.exit_after_parity and self.scores is None:
            raise ValueError("exit_after_parity needs pairs and scores")
        if self.replicas.max < self.replicas.min:
            raise ValueError(f"replicas.max {self.replicas.max} is less than replicas.min {self.replicas.min}")
        return self


def run(config: ServeConfig) -> dict[str, Any]:
    """Start, compare, then end or serve until a signal; returns the metrics."""
    from raylib.ray_session import ray_session
    from raylib.runs import Run, require_done
    from raylib.serving.parity import check_parity, compare_online, read_sample
    from raylib.serving.server import check_port, running_server, stop_signals
    from raylib.student.artifact import load_student

    inputs = {name: uri for name in ("model", "pairs", "scores") if (uri := getattr(config, name)) is not None}
    for uri in inputs.values():
        require_done(uri)
    model = Path(config.model) / "model" if (Path(config.model) / "model").is_dir() else Path(config.model)
    schema = load_student(model)[0].spec.label_schema  # a damaged artifact is named here, before Ray starts
    directory = Run(config.output, "serve", config)
    if directory.is_done:
        return directory.metrics()
    sample = None
    if config.pairs and config.scores:
        sample = read_sample(config.scores, config.pairs, config.parity_rows, config.seed)
    check_port(config.host, config.port)
    directory.write_provenance(inputs)
    parity: dict[str, Any] = {}
    with ray_session(), running_server(_settings(config, str(model.absolute()))) as url:
        if sample:
            parity = compare_online(url, sample, schema.names, config.max_items)
            directory.write_json("parity.json", {**parity, "tolerance": config.tolerance})
            print(f"parity: {parity}", flush=True)
            check_parity(parity, config.tolerance)
        if not config.exit_after_parity:
            with stop_signals() as stop:  # until here a signal ends the job at once
                print(f"serving {model} at {url}; SIGTERM or Ctrl-C ends it", flush=True)
                stop.wait()
            print("stopping: requests in flight are being answered", flush=True)
    if sample is None or not config.exit_after_parity:
        return parity  # a server has no last row: the run stays open, and the same command serves again
    skipped = {"over_limit": sample.num_over_limit}
    return directory.finish(len(sample.pairs) + sample.num_over_limit, len(sample.pairs), {}, skipped, parity=parity)


def _settings(config: ServeConfig, model: str) -> Any:
    from raylib.serving.settings import ServerSettings

    replicas = config.replicas.model_dump()
    return ServerSettings(
        model=model,
        min_replicas=replicas.pop("min"),
        max_replicas=replicas.pop("max"),
        **replicas,
        **{
            name: getattr(config, name)
            for name in (
                "host",
                "port",
                "dtype",
                "max_items",
                "max_queued_requests",
                "batch_tokens",
                "deadline_ms",
                "max_wait_ms",
                "drain_s",
            )
        },
    )


if __name__ == "__main__":
    main(ServeConfig, run, "jobs.serve")
