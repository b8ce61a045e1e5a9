"""What the engine is asked, and what comes back. Pure values: they cross processes."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from raylib.labels import LabelSchema
from raylib.prompts import parse_answer


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn. Published: temperature 0.7, top-p 0.99, top-k 50 (arXiv 2601.21611, section 4)."""

    temperature: float  # 0 is greedy
    top_p: float
    top_k: int
    max_tokens: int
    seed: int


@dataclass(frozen=True)
class Request:
    """One answer to generate."""

    unit: int
    position: int  # place in the unit; output rows are sorted by it
    pair_id: str
    bucket: int
    perspective: str
    sample: int
    prompt_ids: list[int] = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """One generated answer."""

    request: Request
    text: str
    finish_reason: str
    cached_tokens: int  # prompt tokens whose prefill was shared
    generated_tokens: int


def request_seed(pair_id: str, perspective: str, sample: int, run_seed: int) -> int:
    """Seed of one request: its own, so that an answer depends neither on its batch nor on a retry."""
    text = json.dumps([pair_id, perspective, sample, run_seed])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) & 0x7FFFFFFF


def rationale_row(answer: Answer, schema: LabelSchema, fingerprint: str) -> dict[str, Any]:
    """The row of the rationales table; an answer that does not parse keeps its text and says why in `error`."""
    request = answer.request
    rationale, label, error = parse_answer(answer.text, answer.finish_reason, schema)
    return {
        "pair_id": request.pair_id,
        "bucket": request.bucket,
        "perspective": request.perspective,
        "sample": request.sample,
        "rationale": rationale,
        "label": label,
        "error": error,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": len(request.prompt_ids),
        "generated_tokens": answer.generated_tokens,
        "fingerprint": fingerprint,
    }


def rejected_row(request: Request, reason: str, detail: str) -> dict[str, Any]:
    """The row of the rejected table for a request that was never sent."""
    payload = {"pair_id": request.pair_id, "perspective": request.perspective, "sample": request.sample}
    return {"stage": "annotate", "reason": reason, "detail": detail, "payload": json.dumps(payload), "attempt": 1}


@dataclass
class UnitStats:
    """Counts of one unit, or of several added up; stored in the footer of each unit's file."""

    num_pairs: int = 0
    rows_out: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    rejected: Counter[str] = field(default_factory=Counter)  # by reason
    errors: Counter[str] = field(default_factory=Counter)  # by parse error
    labels: dict[str, Counter[str]] = field(default_factory=dict)  # by perspective, then by label or error

    def add_row(self, row: dict[str, Any], cached_tokens: int) -> None:
        """Count one row of the rationales table."""
        self.rows_out += 1
        self.prompt_tokens += row["prompt_tokens"]
        self.cached_tokens += cached_tokens
        self.generated_tokens += row["generated_tokens"]
        if row["error"]:
            self.errors[row["error"]] += 1
        self.labels.setdefault(row["perspective"], Counter())[row["label"] or row["error"]] += 1

    def add(self, other: "UnitStats") -> None:
        """Add another unit's counts."""
        for name in ("num_pairs", "rows_out", "prompt_tokens", "cached_tokens", "generated_tokens"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.rejected.update(other.rejected)
        self.errors.update(other.errors)
        for perspective, counts in other.labels.items():
            self.labels.setdefault(perspective, Counter()).update(counts)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        labels = {perspective: dict(sorted(counts.items())) for perspective, counts in sorted(self.labels.items())}
        return {**plain, "rejected": dict(self.rejected), "errors": dict(self.errors), "labels": labels}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "UnitStats":
        """The inverse of `to_dict`."""
        counters = {name: Counter(values[name]) for name in ("rejected", "errors")}
        labels = {perspective: Counter(counts) for perspective, counts in values["labels"].items()}
        return cls(**{**values, **counters, "labels": labels})
