"""The Ray Data actor: turns units of pairs into finished unit files."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from raylib.annotation.engine import Engine, EngineSettings
from raylib.annotation.requests import Answer, Request, Sampling, UnitStats, rationale_row, rejected_row
from raylib.annotation.units import Plan, Unit, done_units, read_unit, unit_stats, write_unit
from raylib.labels import LabelSchema
from raylib.prompts import Perspective, encode_prompt


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
    engine: EngineSettings
    fingerprint: str


@dataclass
class _OpenUnit:
    """A unit whose answers are coming in."""

    unit: Unit
    num_requests: int
    answers: list[Answer] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return len(self.answers) + len(self.rejected) == self.num_requests


class Annotator:
    """Holds one engine; called with a batch of unit indices, writes each unit's file and yields its counts."""

    def __init__(self, task: AnnotationTask) -> None:
        self.task = task
        self.engine = Engine(task.engine, task.sampling)
        self.ready_at_s = time.time()

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        """Yield one row a unit, in the batch's order.

        Ray retries the whole call when the process dies: units that are written already are only reported, and the
        fixed order lets Ray tell which rows it has seen.
        """
        task = self.task
        units = [task.plan.units[int(index)] for index in batch["unit"]]
        done = done_units(task.output, task.plan)
        stats = {unit.index: unit_stats(task.output, unit) for unit in units if unit.index in done}
        finished = self._annotate([unit for unit in units if unit.index not in done])
        for unit in units:
            while unit.index not in stats:
                closed, counts = next(finished)
                stats[closed.index] = counts
            yield {"stats": [json.dumps(stats[unit.index])], "ready_at_s": [self.ready_at_s]}

    def _annotate(self, units: Sequence[Unit]) -> Iterator[tuple[Unit, dict[str, Any]]]:
        open_units: dict[int, _OpenUnit] = {}
        for answer in self.engine.stream(self._requests(units, open_units)):
            open_units[answer.request.unit].answers.append(answer)
            yield from self._close(open_units)
        yield from self._close(open_units)

    def _requests(self, units: Sequence[Unit], open_units: dict[int, _OpenUnit]) -> Iterator[Request]:
        """The requests of the units, unit by unit, pair by pair, and so that neighbours share their prefill."""
        task = self.task
        for unit in units:
            pairs = read_unit(task.plan, unit)
            num_requests = len(pairs) * len(task.perspectives) * task.samples
            open_unit = open_units[unit.index] = _OpenUnit(unit, num_requests)
            position = 0
            for pair in pairs:
                for perspective in task.perspectives:
                    messages = perspective.messages(task.schema, pair, task.num_few_shots)
                    prompt_ids = encode_prompt(self.engine.tokenizer, messages)
                    needed = len(prompt_ids) + task.sampling.max_tokens
                    for sample in range(task.samples):
                        request = Request(
                            unit=unit.index,
                            position=position,
                            pair_id=pair["pair_id"],
                            bucket=pair["bucket"],
                            perspective=perspective.name,
                            sample=sample,
                            prompt_ids=prompt_ids,
                        )
                        position += 1
                        if needed > self.engine.max_model_len:
                            detail = f"{needed} tokens with the answer's, the model takes {self.engine.max_model_len}"
                            open_unit.rejected.append(rejected_row(request, "too_long", detail))
                        else:
                            yield request

    def _close(self, open_units: dict[int, _OpenUnit]) -> Iterator[tuple[Unit, dict[str, Any]]]:
        for open_unit in [open_unit for open_unit in open_units.values() if open_unit.is_complete]:
            del open_units[open_unit.unit.index]
            counts = UnitStats(num_pairs=open_unit.unit.num_pairs)
            rows = []
            for answer in sorted(open_unit.answers, key=lambda answer: answer.request.position):
                row = rationale_row(answer, self.task.schema, self.task.fingerprint)
                counts.add_row(row, answer.cached_tokens)
                rows.append(row)
            counts.rejected.update(row["reason"] for row in open_unit.rejected)
            write_unit(self.task.output, open_unit.unit, rows, open_unit.rejected, counts.to_dict())
            yield open_unit.unit, counts.to_dict()
