"""Settings of a server, as the deployment gets them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ServerSettings:
    """`model` is the path of a student artifact that every node can read; `dtype` as in raylib.student.inference."""

    model: str
    host: str
    port: int
    dtype: str = "float32"
    min_replicas: int = 1
    max_replicas: int = 1
    num_cpus: float = 1.0  # of one replica
    num_gpus: float = 0.0
    target_ongoing_requests: float = 4.0  # a replica; the autoscaler adds replicas above it
    max_ongoing_requests: int = 1000  # a replica, nearly all in its own queue, which knows their deadlines
    max_queued_requests: int = 200  # waiting for a replica; further ones get 503 at once
    max_items: int = 100  # a request
    batch_tokens: int = 8192
    deadline_ms: float = 10_000.0  # of a request that names none
    max_wait_ms: float = 500.0  # in a replica's queue; a request that would wait longer gets 503 at once
    drain_s: float = 30.0  # how long requests in flight may take when the server stops


def artifact_fingerprint(model: str) -> str:
    """16 hex digits over description, weights and int8 ranges of a student artifact; equal for copies of it."""
    digest = hashlib.blake2b(digest_size=8)
    for name in ("student.json", "model.safetensors", "int8.safetensors"):
        file = Path(model) / name
        if name != "int8.safetensors" or file.exists():
            digest.update(file.read_bytes())
    return digest.hexdigest()
