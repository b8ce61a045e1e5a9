"""What the engine is asked, and what comes back. Pure values: they cross processes."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from raylib.labels import LabelSchema
from raylib.prompts import parse_answer

# Why a request has no answer. The parse errors may be luck, so they are sampled again with another seed; the others
# would only repeat themselves.
PARSE_REASONS = ("empty", "no_label", "label_outside_schema", "truncated")
REASONS = (*PARSE_REASONS, "too_long", "bad_text", "engine")


class TooLongError(Exception):
    """A prompt and its answer are longer than the model takes."""


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. Published: temperature 0.7, top-p 0.99, top-k 50 (arXiv 2601.21611, section 4)."""

    temperature: float  # 0 is greedy
    top_p: float
    top_k: int
    max_tokens: int
    seed: int
    classes: tuple[str, ...] = ()  # whose probabilities are wanted beside the label; none by default


@dataclass(frozen=True)
class Prompt:
    """A conversation that ends with the question, and its token ids where the engine takes ids."""

    messages: Sequence[dict[str, str]] = field(repr=False)
    ids: Sequence[int] | None = field(repr=False)


@dataclass(frozen=True)
class Request:
    """One answer to generate."""

    unit: int
    position: int  # place in the unit; output rows are sorted by it
    pair_id: str
    bucket: int
    perspective: str
    sample: int
    prompt: Prompt
    attempt: int = 1

    def again(self) -> "Request":
        """The same request for its next attempt, which has another seed."""
        return replace(self, attempt=self.attempt + 1)


@dataclass(frozen=True)
class Answer:
    """One generated answer."""

    request: Request
    text: str
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int  # prompt tokens whose prefill was shared
    generated_tokens: int
    label_probs: list[float] | None = None  # of Sampling.classes


@dataclass(frozen=True)
class Rejection:
    """A request that has no answer, and why."""

    request: Request
    reason: str  # one of REASONS
    detail: str
    text: str | None = None  # what was generated, where something was


Outcome = Answer | Rejection


class RunningEngine(Protocol):
    """What an actor needs of an engine."""

    def prompt(self, messages: Sequence[dict[str, str]]) -> Prompt:
        """Encode a conversation; raises TooLongError."""

    def stream(self, next_request: Callable[[], Request | None]) -> Iterator[list[Outcome]]:
        """Yield, often, the requests that have ended; ask for more while there is room, until there are no more."""


class EngineStart(Protocol):
    """The settings of an engine, which cross processes and start it."""

    @property
    def num_gpus(self) -> float:
        """GPUs that it takes."""

    def start(self, sampling: Sampling) -> RunningEngine:
        """Start it in this process."""


def request_seed(pair_id: str, perspective: str, sample: int, run_seed: int, attempt: int = 1) -> int:
    """Seed of one request: its own, so that an answer depends neither on its batch nor on a restart."""
    key: list[Any] = [pair_id, perspective, sample, run_seed]
    text = json.dumps(key if attempt == 1 else [*key, attempt])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) & 0x7FFFFFFF


def judge(answer: Answer, schema: LabelSchema, fingerprint: str) -> dict[str, Any] | Rejection:
    """The row of the rationales table, or the rejection of an answer that does not parse."""
    request = answer.request
    rationale, label, error = parse_answer(answer.text, answer.finish_reason, schema)
    if error:
        return Rejection(request, error, f"finish reason {answer.finish_reason}", answer.text)
    return {
        "pair_id": request.pair_id,
        "bucket": request.bucket,
        "perspective": request.perspective,
        "sample": request.sample,
        "rationale": rationale,
        "label": label,
        "error": None,
        "label_probs": answer.label_probs,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "generated_tokens": answer.generated_tokens,
        "fingerprint": fingerprint,
    }


def rejected_row(rejection: Rejection) -> dict[str, Any]:
    """The row of the rejected table; its payload names the request and holds the text of its last attempt."""
    request = rejection.request
    payload = {"pair_id": request.pair_id, "perspective": request.perspective, "sample": request.sample}
    if rejection.text is not None:
        payload["text"] = rejection.text
    return {
        "stage": "annotate",
        "reason": rejection.reason,
        "detail": rejection.detail,
        "payload": json.dumps(payload, ensure_ascii=False),
        "attempt": request.attempt,
    }


@dataclass
class UnitStats:
    """Counts of one unit, or of several added up; stored in the footer of each unit's file."""

    num_pairs: int = 0
    rows_out: int = 0
    prompt_tokens: int = 0  # of all attempts, like the two below
    cached_tokens: int = 0
    generated_tokens: int = 0
    retried: Counter[str] = field(default_factory=Counter)  # attempts that were repeated, by reason
    rejected: Counter[str] = field(default_factory=Counter)  # by reason
    labels: dict[str, Counter[str]] = field(default_factory=dict)  # by perspective, then by label
    replay: int = 0  # the last replay that asked this unit's rejected requests again

    def add_answer(self, answer: Answer) -> None:
        """Count the work of one attempt."""
        self.prompt_tokens += answer.prompt_tokens
        self.cached_tokens += answer.cached_tokens
        self.generated_tokens += answer.generated_tokens

    def add_row(self, row: dict[str, Any]) -> None:
        """Count one row of the rationales table."""
        self.rows_out += 1
        self.labels.setdefault(row["perspective"], Counter())[row["label"]] += 1

    def add(self, other: "UnitStats") -> None:
        """Add another unit's counts."""
        for name in ("num_pairs", "rows_out", "prompt_tokens", "cached_tokens", "generated_tokens"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.retried.update(other.retried)
        self.rejected.update(other.rejected)
        for perspective, counts in other.labels.items():
            self.labels.setdefault(perspective, Counter()).update(counts)

    @property
    def num_requests(self) -> int:
        """Requests that have come to an end."""
        return self.rows_out + self.rejected.total()

    def is_done(self, replay: int) -> bool:
        """Whether a written unit has nothing to do in a replay; replay 0 is the run itself."""
        return self.replay >= replay or not self.rejected.total()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        labels = {perspective: dict(sorted(counts.items())) for perspective, counts in sorted(self.labels.items())}
        rejected = {reason: count for reason, count in self.rejected.items() if count}
        return {**plain, "retried": dict(self.retried), "rejected": rejected, "labels": labels}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "UnitStats":
        """The inverse of `to_dict`."""
        counters = {name: Counter(values[name]) for name in ("retried", "rejected")}
        labels = {perspective: Counter(counts) for perspective, counts in values["labels"].items()}
        return cls(**{**values, **counters, "labels": labels})
