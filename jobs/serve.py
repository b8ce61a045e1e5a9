"""Serve a student over HTTP, after comparing its answers with the offline scores.

    python -m jobs.serve --config FILE
    python -m jobs.serve --output runs/serve --model runs/distill --parity.pairs runs/pairs --parity.scores runs/distill
    curl -s localhost:8000/v1/score -H 'content-type: application/json' \\
        -d '{"query": "red shoes", "locale": "en", "items": [{"item_id": "1", "title": "Red running shoes"}]}'

Serves until SIGTERM or SIGINT, then answers what is in flight and ends. SIGHUP has it read rules and keys again and the
replicas load what is now at the paths of the students, without a pause. With exit_after_parity it ends after the
comparison, the run's result.
"""

import hashlib
import secrets
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from raylib.abtest.assignment import check_shares
from raylib.config import JobConfig, main
from raylib.serving.decisions import DecisionSection
from raylib.serving.sections import ExperimentSection, LimitsSection, ParitySection, Replicas


class ServeConfig(JobConfig):
    """Serve a student: POST /v1/score and /rerank, GET /v1/model, /metrics, /healthz, /readyz, and a page at /."""

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
    limits: LimitsSection = LimitsSection()  # type: ignore[call-arg]
    cache_items: int = Field(0, ge=0, description="pairs whose answer is remembered, in each replica; 0 = none")
    rules: str | None = Field(None, description="YAML file of business rules (see raylib/serving/rules.py)")
    keys_file: str | None = Field(None, description="hashes of the bearer keys that may ask; null = everybody")
    cors_origins: list[str] = Field([], description="web origins whose pages may ask; none by default")
    experiment: ExperimentSection = ExperimentSection()  # type: ignore[call-arg]
    decisions: DecisionSection = DecisionSection()  # type: ignore[call-arg]
    parity: ParitySection = ParitySection()  # type: ignore[call-arg]
    exit_after_parity: bool = Field(False, description="end after the comparison instead of serving")

    @model_validator(mode="after")
    def _possible(self) -> "ServeConfig":
        if (self.parity.pairs is None) != (self.parity.scores is None):
            raise ValueError("parity.pairs and parity.scores go together: both for the comparison, or neither")
        if self.exit_after_parity and self.parity.scores is None:
            raise ValueError("exit_after_parity needs parity.pairs and parity.scores")
        if self.replicas.max < self.replicas.min:
            raise ValueError(f"replicas.max {self.replicas.max} is less than replicas.min {self.replicas.min}")
        if self.experiment.shares:
            check_shares(self.experiment.shares)
        if unknown := sorted(self.experiment.models.keys() - self.experiment.shares.keys()):
            raise ValueError(f"experiment.models: {', '.join(unknown)}: no share of the users")
        if taken := {"main", "shadow", "model", "pairs", "scores"} & self.experiment.shares.keys():
            raise ValueError(f"experiment.shares: {', '.join(taken)}: name the arm otherwise")
        return self


def run(config: ServeConfig) -> dict[str, Any]:
    """Start, compare, then end or serve until a signal; returns the metrics."""
    from raylib.ray_session import ray_session
    from raylib.runs import Run
    from raylib.serving.parity import check_parity, compare_online
    from raylib.serving.server import check_port, running_server, server_signals
    from raylib.student.artifact import load_student

    inputs = _inputs(config)
    schema = load_student(inputs["model"])[0].spec.label_schema  # a damaged artifact is named here, before Ray starts
    # The comparison over HTTP is a client like others; its key lives as long as this process.
    key = secrets.token_urlsafe(32)
    policy = read_policy(config, key)  # mistakes in its files are told before the run directory exists
    directory = Run(config.output, "serve", config)
    if directory.is_done:
        return directory.metrics()
    wanted, sample = _wanted(config, inputs, policy)
    check_port(config.host, config.port)
    directory.write_provenance(inputs)
    parity: dict[str, Any] = {}
    with ray_session(), running_server(_settings(config), wanted) as url:
        if sample:
            parity = compare_online(url, sample, schema.names, config.limits.max_items, key)
            directory.write_json("parity.json", {**parity, "tolerance": config.parity.tolerance})
            print(f"parity: {parity}", flush=True)
            check_parity(parity, config.parity.tolerance)
        if not config.exit_after_parity:
            with server_signals() as signals:  # until here a signal ends the job at once
                print(f"serving {inputs['model']} at {url}; SIGTERM or Ctrl-C ends it", flush=True)
                _serve(config, inputs, key, signals)
            print("stopping: requests in flight are being answered", flush=True)
    if sample is None or not config.exit_after_parity:
        return parity  # a server has no last row: the run stays open, and the same command serves again
    skipped = {"over_limit": sample.num_over_limit}
    return directory.finish(len(sample.pairs) + sample.num_over_limit, len(sample.pairs), {}, skipped, parity=parity)


def _serve(config: ServeConfig, inputs: dict[str, str], key: str, signals: Any) -> None:
    """Until told to end; what cannot be taken is told and changes nothing."""
    from raylib.errors import TricotError
    from raylib.serving.server import exchange

    while not signals.stop.is_set():
        signals.wait()
        if signals.reload.is_set() and not signals.stop.is_set():
            signals.reload.clear()
            try:
                wanted, _ = _wanted(config, inputs, read_policy(config, key))
                exchange(wanted)
                fingerprints = ", ".join(f"{name} {model.fingerprint}" for name, model in wanted.models.items())
                print(f"now serving {fingerprints}", flush=True)
            except TricotError as error:
                print(f"not taken: {error}", flush=True)


def _inputs(config: ServeConfig) -> dict[str, str]:
    """Artifacts and tables by role, the artifacts' folders resolved; raises InputError for unfinished runs."""
    from raylib.runs import require_done

    students = {"model": config.model, **config.experiment.models}
    if config.experiment.shadow:
        students["shadow"] = config.experiment.shadow
    tables = {name: uri for name in ("pairs", "scores") if (uri := getattr(config.parity, name)) is not None}
    for uri in (*students.values(), *tables.values()):
        require_done(uri)
    folders = {
        name: Path(uri) / "model" if (Path(uri) / "model").is_dir() else Path(uri) for name, uri in students.items()
    }
    return {**{name: str(folder.absolute()) for name, folder in folders.items()}, **tables}


def _wanted(config: ServeConfig, inputs: dict[str, str], policy: Any) -> tuple[Any, Any]:
    """The policy, the students as they are on the disk now, and the sample for the main student's parity gate."""
    from raylib.errors import InputError
    from raylib.serving.deployment import Wanted
    from raylib.serving.parity import read_sample, save_sample
    from raylib.serving.settings import MAIN, ModelRef, artifact_fingerprint

    names = {"model": MAIN, "shadow": "shadow", **{arm: arm for arm in config.experiment.models}}
    try:
        models = {
            name: ModelRef(inputs[role], artifact_fingerprint(inputs[role]))
            for role, name in names.items()
            if role in inputs
        }
    except OSError as error:
        raise InputError(f"no whole student artifact: {error}; distil again or restore it") from None
    if config.parity.pairs is None or config.parity.scores is None:
        return Wanted(models, None, policy, time.time_ns()), None
    sample = read_sample(config.parity.scores, config.parity.pairs, config.parity.num_rows, config.parity.seed)
    file = Path(config.output).absolute() / "parity_sample.json"
    save_sample(sample, file)
    return Wanted(models, str(file), policy, time.time_ns()), sample


def read_policy(config: ServeConfig, key: str) -> Any:
    """Rules and keys as their files have them now; `key` is this process's own.

    Raises ConfigError naming every mistake of both files.
    """
    from raylib.errors import ConfigError
    from raylib.serving.access import load_keys
    from raylib.serving.rules import load_rules
    from raylib.serving.settings import Policy

    found: list[Any] = []
    mistakes: list[str] = []
    for load, path in ((load_rules, config.rules), (load_keys, config.keys_file)):
        try:
            found.append(load(path))
        except ConfigError as error:
            mistakes.append(str(error))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    rules, digests = found
    own = (hashlib.sha256(key.encode()).digest(),) if digests else ()
    return Policy(rules, (*digests, *own))


def _settings(config: ServeConfig) -> Any:
    from raylib.serving.settings import Experiment, ServerSettings

    replicas = config.replicas.model_dump()
    shares = config.experiment.shares
    return ServerSettings(
        host=config.host,
        port=config.port,
        dtype=config.dtype,
        min_replicas=replicas.pop("min"),
        max_replicas=replicas.pop("max"),
        **replicas,
        **config.limits.model_dump(),
        cache_items=config.cache_items,
        tolerance=config.parity.tolerance,
        cors_origins=tuple(config.cors_origins),
        experiment=Experiment(config.experiment.name, shares, frozenset(config.experiment.models)) if shares else None,
        decisions=config.decisions,
    )


if __name__ == "__main__":
    main(ServeConfig, run, "jobs.serve")
