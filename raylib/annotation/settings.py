"""The sections of annotation's configuration, and what they start. Importing them imports no engine."""

from typing import Any, Literal

from pydantic import Field

from raylib.annotation.endpoint import EndpointSettings, read_key
from raylib.annotation.engine import EngineSettings
from raylib.annotation.progress import ErrorBudget, Limits
from raylib.annotation.requests import PARSE_REASONS
from raylib.config import Section


class EngineSection(Section):
    """The vLLM engines; each is one process."""

    num_engines: int = Field(1, ge=1, description="engines, each with its own copy of the model")
    num_cpus: float = Field(1.0, gt=0, description="cores an engine takes; on a CPU also its threads")
    num_gpus: float = Field(0.0, ge=0, description="GPUs an engine takes; 0 = the CPU build of vLLM")
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs over which an engine splits the model")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="weights' number format")
    max_model_len: int | None = Field(None, ge=16, description="tokens of prompt + answer; null = the model's own")
    max_num_seqs: int = Field(256, ge=1, description="answers that an engine generates at the same time")
    kv_cache_memory_bytes: int | None = Field(None, ge=1 << 20, description="null = vLLM's choice; 512 MiB on a CPU")
    enforce_eager: bool = Field(False, description="no compilation: starts 20 s sooner, a tiny model runs half as fast")
    label_probs: bool = Field(False, description="also tell the classes' probabilities, from the label's tokens")

    def resolve(self, model: str, adapter: str | None) -> EngineSettings:
        """What an actor starts an engine from."""
        return EngineSettings(model=model, adapter=adapter, **self.model_dump(exclude={"num_engines", "label_probs"}))


class EndpointSection(Section):
    """An OpenAI-compatible server that answers in place of vLLM; `engine.num_engines` clients share the work."""

    base_url: str = Field(description="its address, e.g. http://127.0.0.1:8000/v1")
    model: str = Field(description="the model's name there")
    key_env: str | None = Field(None, description="environment variable of the driver that holds the key")
    key_file: str | None = Field(None, description="file that holds the key, read by the driver")
    concurrency: int = Field(32, ge=1, description="requests of one client under way at the same time")
    requests_per_minute: int | None = Field(None, ge=1, description="of one client; null = as fast as they return")
    max_tries: int = Field(6, ge=1, description="tries of a request that fails on the way, with exponential back-off")
    timeout_s: float = Field(120.0, gt=0, description="after which a try has failed")
    extra_body: dict[str, Any] = Field({}, description="sent with every request, e.g. {chat_template_kwargs: {...}}")
    label_probs: bool = Field(False, description="also tell the classes' probabilities, from the label's tokens")

    def resolve(self) -> EndpointSettings:
        """What an actor opens a client from; raises InputError when the key is not where it should be."""
        key = read_key(self.key_env, self.key_file)
        return EndpointSettings(key=key, **self.model_dump(exclude={"key_env", "key_file", "label_probs"}))


class LimitsSection(Section):
    """When a request is asked again, and when the run is ended on purpose; shares are of the ended requests."""

    max_attempts: int = Field(3, ge=1, description="answers drawn for a request until one parses")
    min_requests: int = Field(1000, ge=1, description="ended requests before the shares below are looked at")
    too_long: float = Field(0.05, ge=0, le=1, description="share with a prompt that the model cannot take")
    bad_text: float = Field(0.05, ge=0, le=1, description="share of pairs with a blank query or title")
    unparsed: float = Field(
        0.2, ge=0, le=1, description="share for each of empty, no_label, label_outside_schema, truncated"
    )
    engine: float = Field(0.01, ge=0, le=1, description="share that engines or the endpoint failed on")
    start_s: float = Field(
        1800.0, gt=0, description="time without one engine that is ready, after which the run is ended"
    )
    stall_s: float = Field(1800.0, gt=0, description="time without one ended request after which the run is ended")

    def resolve(self) -> Limits:
        """What the driver checks the run against."""
        shares = {**dict.fromkeys(PARSE_REASONS, self.unparsed), "too_long": self.too_long, "bad_text": self.bad_text}
        return Limits(ErrorBudget({**shares, "engine": self.engine}, self.min_requests), self.start_s, self.stall_s)
