"""An OpenAI-compatible endpoint as an engine: chat completions with concurrency, a rate limit and retries.

The driver reads the key from a file or its environment and hands it to the engines' processes; it is in no
configuration and no log. Retries with exponential back-off that honours Retry-After are the openai client's own.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylib.annotation.label_probs import LABEL_TOKENS, NUM_ALTERNATIVES, TokenChoice, label_probs
from raylib.annotation.requests import Answer, Outcome, Prompt, Rejection, Request, Sampling, request_seed
from raylib.errors import InputError

if TYPE_CHECKING:
    from openai.types.chat.chat_completion import Choice

STEP_S = 1.0  # how long a step waits at most, so that heartbeats go on
LENGTH_WORDS = ("context length", "context window", "max_model_len", "too long", "maximum length")


@dataclass(frozen=True)
class EndpointSettings:
    """Where requests go and how fast."""

    base_url: str
    model: str
    key: str = field(repr=False)
    concurrency: int
    requests_per_minute: int | None  # of this engine
    max_tries: int
    timeout_s: float
    extra_body: dict[str, Any]
    num_gpus: float = 0.0  # here; the endpoint has its own

    def start(self, sampling: Sampling) -> "Endpoint":
        """Open a client in this process."""
        return Endpoint(self, sampling)


class Endpoint:
    """One client of an endpoint."""

    def __init__(self, settings: EndpointSettings, sampling: Sampling) -> None:
        """Open the client; nothing is sent yet."""
        from openai import OpenAI

        self._settings = settings
        self._sampling = sampling
        self._client = OpenAI(
            base_url=settings.base_url,
            api_key=settings.key,
            max_retries=settings.max_tries - 1,
            timeout=settings.timeout_s,
        )
        self._pool = ThreadPoolExecutor(settings.concurrency)
        self._pace = Pace(settings.requests_per_minute)

    def prompt(self, messages: Sequence[dict[str, str]]) -> Prompt:
        """The conversation as it is: the endpoint has the chat template, and says when a prompt is too long."""
        return Prompt(messages, None)

    def stream(self, next_request: Callable[[], Request | None]) -> Iterator[list[Outcome]]:
        """Yield at least every STEP_S seconds the requests that have ended, possibly none; see Engine.stream."""
        running: set[Future[Outcome]] = set()
        while True:
            while len(running) < self._settings.concurrency and (request := next_request()):
                running.add(self._pool.submit(self._ask, request))
            if not running:
                return
            done, running = wait(running, STEP_S, FIRST_COMPLETED)
            yield [future.result() for future in done]

    def _ask(self, request: Request) -> Outcome:
        import openai

        sampling = self._sampling
        body = {**self._settings.extra_body, **({"top_k": sampling.top_k} if sampling.top_k else {})}
        self._pace.wait()
        try:
            reply = self._client.chat.completions.create(
                model=self._settings.model,
                messages=list(request.prompt.messages),  # type: ignore[arg-type]
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                seed=request_seed(request.pair_id, request.perspective, request.sample, sampling.seed, request.attempt),
                logprobs=True if sampling.classes else None,
                top_logprobs=NUM_ALTERNATIVES if sampling.classes else None,
                extra_body=body,
            )
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise InputError(
                f"{self._settings.base_url}: {_first_line(error)}; check model, key_env and key_file"
            ) from None
        except openai.APIError as error:
            is_long = any(words in str(error).lower() for words in LENGTH_WORDS)
            return Rejection(request, "too_long" if is_long else "engine", _first_line(error))
        choice, usage = reply.choices[0], reply.usage
        details = usage and usage.prompt_tokens_details
        return Answer(
            request=request,
            text=choice.message.content or "",
            finish_reason=choice.finish_reason or "unknown",
            prompt_tokens=usage.prompt_tokens if usage else 0,
            cached_tokens=(details and details.cached_tokens) or 0,
            generated_tokens=usage.completion_tokens if usage else 0,
            label_probs=label_probs(_choices(choice), sampling.classes) if sampling.classes else None,
        )


class Pace:
    """Spaces calls of many threads evenly."""

    def __init__(self, per_minute: int | None) -> None:
        self._gap_s = 60.0 / per_minute if per_minute else 0.0
        self._next_s = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Sleep until it is this call's turn."""
        if not self._gap_s:
            return
        with self._lock:
            start_s = max(time.monotonic(), self._next_s)
            self._next_s = start_s + self._gap_s
        time.sleep(max(0.0, start_s - time.monotonic()))


def read_key(key_env: str | None, key_file: str | None) -> str:
    """The API key; `none` where neither a file nor a variable is named (a server of one's own).

    Raises InputError when the key is not where it should be.
    """
    if key_file:
        try:
            return Path(key_file).read_text().strip()
        except OSError as error:
            raise InputError(f"key_file {key_file}: {error.strerror}; write the key into it") from None
    if key_env:
        key = os.environ.get(key_env)
        if not key:
            raise InputError(f"key_env {key_env}: the variable is not set where the job's driver runs; set it there")
        return key
    return "none"


def _choices(choice: "Choice") -> list[TokenChoice]:
    """The last tokens of an answer with the likeliest ones at their place; none where the endpoint does not tell."""
    tokens = (choice.logprobs and choice.logprobs.content) or []
    return [
        TokenChoice(token.token, [(one.token, one.logprob) for one in token.top_logprobs])
        for token in tokens[-LABEL_TOKENS:]
    ]


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
