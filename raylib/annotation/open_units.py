"""Units whose answers are coming in: which requests a pair becomes, and what becomes of their outcomes. No engine."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from raylib.annotation.requests import (
    PARSE_REASONS,
    Answer,
    EngineStart,
    Outcome,
    Prompt,
    Rejection,
    Request,
    Sampling,
    UnitStats,
    judge,
    rejected_row,
)
from raylib.annotation.units import Plan, Unit, read_answers, request_key, unit_stats
from raylib.labels import LabelSchema
from raylib.prompts import Perspective

NO_PROMPT = Prompt((), None)


@dataclass(frozen=True)
class AnnotationTask:
    """All that an actor needs to know; crosses processes."""

    output: str
    plan: Plan
    schema: LabelSchema
    perspectives: tuple[Perspective, ...]
    samples: int
    num_few_shots: int
    sampling: Sampling
    max_attempts: int
    engine: EngineStart
    fingerprint: str
    driver: str  # names one attempt of the job
    replay: int = 0  # number of the replay of rejected requests; 0 = the run itself


@dataclass
class OpenUnit:
    """A unit whose answers are coming in."""

    unit: Unit
    num_requests: int
    stats: UnitStats
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)  # by position of the request
    rejected: dict[int, dict[str, Any]] = field(default_factory=dict)
    earlier_attempts: dict[int, int] = field(default_factory=dict)  # of requests that a replay asks again

    @property
    def is_complete(self) -> bool:
        """Whether every request has come to an end."""
        return len(self.rows) + len(self.rejected) == self.num_requests

    def reject(self, rejection: Rejection) -> None:
        """Note a request that will have no answer."""
        self.rejected[rejection.request.position] = rejected_row(rejection)
        self.stats.rejected[rejection.reason] += 1


def begin_unit(task: AnnotationTask, unit: Unit, pairs: Sequence[dict[str, Any]]) -> OpenUnit:
    """A unit of which nothing is answered, or in a replay all but the rejected requests."""
    num_requests = len(pairs) * len(task.perspectives) * task.samples
    written = unit_stats(task.output, unit.index) if task.replay else None
    if not written:
        return OpenUnit(unit, num_requests, UnitStats(num_pairs=len(pairs), replay=task.replay))
    stats = UnitStats.from_dict(written)
    stats.rejected.clear()
    open_unit = OpenUnit(unit, num_requests, replace(stats, replay=task.replay))
    rows, rejected = read_answers(task.output, unit.index)
    row_of = {request_key(row): row for row in rows}
    attempt_of = {request_key(json.loads(row["payload"])): row["attempt"] for row in rejected}
    for number, pair in enumerate(pairs):
        for request in unsent_requests(task, unit, number, pair):
            key = (request.pair_id, request.perspective, request.sample)
            if key in row_of:
                open_unit.rows[request.position] = row_of[key]
            else:
                open_unit.earlier_attempts[request.position] = attempt_of[key]
    return open_unit


def unsent_requests(task: AnnotationTask, unit: Unit, number: int, pair: dict[str, Any]) -> Iterator[Request]:
    """Every request of a pair, still without its prompt; `number` is the pair's place in the unit."""
    position = number * len(task.perspectives) * task.samples
    for perspective in task.perspectives:
        for sample in range(task.samples):
            yield Request(unit.index, position, pair["pair_id"], pair["bucket"], perspective.name, sample, NO_PROMPT)
            position += 1


def settle(task: AnnotationTask, open_unit: OpenUnit, outcome: Outcome) -> Request | None:
    """Note an outcome, or return the request for its next attempt."""
    request = outcome.request
    if isinstance(outcome, Answer):
        open_unit.stats.add_answer(outcome)
        judged = judge(outcome, task.schema, task.fingerprint)
        if not isinstance(judged, Rejection):
            open_unit.rows[request.position] = judged
            open_unit.stats.add_row(judged)
            return None
        outcome = judged
    attempts_here = request.attempt - open_unit.earlier_attempts.get(request.position, 0)
    if outcome.reason in PARSE_REASONS and attempts_here < task.max_attempts:
        open_unit.stats.retried[outcome.reason] += 1
        return request.again()
    open_unit.reject(outcome)
    return None
