"""Settings of a server, as the deployment gets them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from raylib.serving.decisions import DecisionSection
from raylib.serving.rules import Rule

MAIN, SHADOW = "main", "shadow"  # names of students; the others are those of an experiment's arms


@dataclass(frozen=True)
class Experiment:
    """Which student answers which users; arms without one of their own get MAIN."""

    name: str
    shares: Mapping[str, float]  # by arm, together 1
    arms_with_model: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ModelRef:
    """A student artifact on a path that every node can read, as it was when it was chosen."""

    path: str
    fingerprint: str


@dataclass(frozen=True)
class Policy:
    """What the operator's files say of items and of clients; it may change while the server runs."""

    rules: tuple[Rule, ...] = ()
    key_digests: tuple[bytes, ...] = ()  # without any everybody may ask


@dataclass(frozen=True)
class ServerSettings:
    """What fronts and replicas keep for life; students and policy come apart, since they change meanwhile."""

    host: str
    port: int
    dtype: str = "float32"  # as in raylib.student.inference
    min_replicas: int = 1
    max_replicas: int = 1
    num_fronts: int = 1  # processes that take requests and send them on to replicas
    num_cpus: float = 1.0  # of one replica
    num_gpus: float = 0.0
    target_ongoing_requests: float = 4.0  # a replica; the autoscaler adds replicas above it
    upscale_delay_s: float = 10.0  # of load above the target before a replica is added
    downscale_delay_s: float = 300.0  # of load below it before one goes
    max_ongoing_requests: int = 1000  # a replica, nearly all in its own queue, which knows their deadlines
    max_queued_requests: int = 200  # waiting for a replica, a front; further ones get 429 at once
    max_items: int = 100  # a request
    batch_tokens: int = 8192
    deadline_ms: float = 10_000.0  # of a request that names none
    max_wait_ms: float = 500.0  # in a replica's queue; a request that would wait longer gets 503 at once
    drain_s: float = 30.0  # how long requests in flight may take when the server stops
    cache_items: int = 0
    tolerance: float = 1e-4  # of the parity gate
    cors_origins: tuple[str, ...] = ()
    experiment: Experiment | None = None
    decisions: DecisionSection = field(default_factory=lambda: DecisionSection(folder=None))  # type: ignore[call-arg]


def artifact_fingerprint(model: str | Path) -> str:
    """16 hex digits over description, weights and int8 ranges of a student artifact; equal for copies of it."""
    digest = hashlib.blake2b(digest_size=8)
    for name in ("student.json", "model.safetensors", "int8.safetensors"):
        file = Path(model) / name
        if name != "int8.safetensors" or file.exists():
            digest.update(file.read_bytes())
    return digest.hexdigest()
