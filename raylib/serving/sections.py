"""The sections of the server's configuration. Importing them imports no Ray and no torch."""

from pydantic import Field

from raylib.config import Section


class Replicas(Section):
    """Copies of the server; Ray Serve scales between min and max."""

    min: int = Field(1, ge=1, description="replicas that always run")
    max: int = Field(1, ge=1, description="replicas under load; equal to min: a fixed number")
    num_fronts: int = Field(1, ge=1, description="processes that take requests and send them on to the replicas")
    num_cpus: float = Field(1.0, gt=0, description="cores of one replica")
    num_gpus: float = Field(0.0, ge=0, description="GPUs of one replica; shares are allowed")
    target_ongoing_requests: float = Field(4.0, gt=0, description="requests in work a replica at which one is added")
    upscale_delay_s: float = Field(10.0, ge=0, description="seconds of load above the target before one is added")
    downscale_delay_s: float = Field(300.0, ge=0, description="seconds of load below the target before one goes")
    max_ongoing_requests: int = Field(1000, ge=1, description="requests a replica takes, nearly all into its queue")


class LimitsSection(Section):
    """What a request may ask, and how long it may wait."""

    max_items: int = Field(100, ge=1, le=10_000, description="items a request; more is answered with 413")
    max_queued_requests: int = Field(200, ge=1, description="requests that may wait for a replica; more get 429")
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


class ParitySection(Section):
    """The gate before the first request: served and offline probabilities must be equal."""

    pairs: str | None = Field(None, description="run directory of jobs.prepare")
    scores: str | None = Field(None, description="run directory with the scores table to compare with (jobs.distill)")
    num_rows: int = Field(200, ge=1, description="pairs to compare")
    tolerance: float = Field(1e-4, ge=0, description="largest allowed difference of a probability")
    seed: int = Field(0, ge=0, description="seed of the drawn pairs")


class ExperimentSection(Section):
    """Which user is answered by which student."""

    name: str = Field("experiment", min_length=1, description="another name mixes the users anew")
    shares: dict[str, float] = Field({}, description="arm -> share of the users, e.g. {new: 0.1, old: 0.1, rest: 0.8}")
    models: dict[str, str] = Field({}, description="arm -> student; the arms without one are answered by `model`")
    shadow: str | None = Field(None, description="student that scores too, as far as there is time, and answers nobody")
