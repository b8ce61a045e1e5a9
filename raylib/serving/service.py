"""Everything one replica does with a request, without HTTP and without Ray. N items of a request."""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from raylib.abtest.assignment import assign
from raylib.errors import TricotError
from raylib.serving.counts import Counts
from raylib.serving.decisions import Decision, DecisionLog
from raylib.serving.parity import load_sample
from raylib.serving.queue import ExpiredError, OverloadedError
from raylib.serving.refusals import RefusalError
from raylib.serving.rerank import RerankRequest, ranked
from raylib.serving.rules import Applied
from raylib.serving.schemas import ScoreRequest
from raylib.serving.settings import MAIN, SHADOW, ModelRef, ServerSettings
from raylib.serving.student import Scored, ServedStudent

FILTERED_TIERS = (0, 1)  # before ranking (arXiv 2601.21611)
MAX_SHADOWS = 4  # requests for the shadow model under way at the same time; more are dropped


class Service:
    """The students of a replica, and what happens to their answers before they are sent."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.counts = Counts()
        self.students: Mapping[str, ServedStudent] = {}
        self.parity: dict[str, Any] | None = None
        self.load_error: str | None = None  # why the students that were last asked for are not the ones that serve
        self._model_thread = ThreadPoolExecutor(1)
        self._shadows: set[asyncio.Task[None]] = set()
        self._decisions = DecisionLog(
            settings.decisions, lambda result, rows: self.counts.add("decisions", result, amount=rows)
        )

    def load(self, models: Mapping[str, ModelRef], parity_file: str | None) -> None:
        """Load students and put them in place of those that serve, once all are there and pass the parity gate.

        A failure leaves those that serve where they are, and is raised only when there are none. Blocks; requests are
        answered meanwhile, more slowly.
        """
        try:
            loaded = {
                name: ServedStudent(name, model, self.settings, self._model_thread, self.counts)
                for name, model in models.items()
            }
            sample = load_sample(Path(parity_file)) if parity_file else None
            parity = loaded[MAIN].check_parity(sample, self.settings.tolerance) if sample else None
        except TricotError as error:
            self.load_error = str(error)
            if not self.students:
                raise
            print(f"keeping {self.students[MAIN].fingerprint}: {error}", flush=True)
            return
        # Requests on the way hold the old student, which ends with the last of them.
        self.students, self.parity, self.load_error = loaded, parity, None

    async def score(self, request: ScoreRequest, deadline_ms: int | None) -> dict[str, Any]:
        """The answer to POST /v1/score; raises RefusalError."""
        self._check_number(len(request.items))
        arm = self._arm(request.user_id)
        name = request.model or self._model_of(arm)
        if name not in self.students:
            known = ", ".join(self.students)
            raise RefusalError(422, "unknown_model", f"no such model; models: {known}")
        student = self.students[name]
        items = [item.model_dump() for item in request.items]
        scored = await self._scored(student, request.query, items, deadline_ms, request.latent)
        rows, applied_N = self._rows(student, items, request.locale, scored.probs_NC)
        for row, latent_R in zip(rows, scored.latents_NR if scored.latents_NR is not None else (), strict=False):
            row["latent"] = latent_R.tolist()
        if not request.explain:
            for row in rows:
                del row["explanation"]
        if request.model is None:
            self._note(request, student, arm, rows, applied_N, is_shadow=False)
            self._start_shadow(request, items)
        return {"model": name, "fingerprint": student.fingerprint, "arm": arm, "items": rows}

    async def rerank(self, request: RerankRequest, deadline_ms: int | None) -> Any:
        """The answer to POST /rerank; raises RefusalError."""
        self._check_number(len(request.candidates))
        student = self.students[MAIN]
        items = [{"title": text} for text in request.candidates]
        scored = await self._scored(student, request.query, items, deadline_ms, False)
        scores = (scored.probs_NC.astype(np.float64) @ student.gains_C).tolist()
        return ranked(request, scores, student.fingerprint, scored.num_tokens)

    def describe(self) -> dict[str, Any]:
        """The answer to GET /v1/model."""
        main, experiment = self.students[MAIN], self.settings.experiment
        schema = main.spec.label_schema
        return {
            "fingerprint": main.fingerprint,
            "label_schema": schema.name,
            "classes": list(schema.names),
            "gains": list(schema.gains),
            "tier_thresholds": list(schema.tier_thresholds),
            "temperature": main.spec.temperature,
            "extractor": main.spec.extractor,
            "item_fields": list(main.spec.item_fields),
            "max_length": main.spec.max_length,
            "max_items": self.settings.max_items,
            "dtype": self.settings.dtype,
            "models": {name: student.fingerprint for name, student in self.students.items()},
            "experiment": {"name": experiment.name, "shares": dict(experiment.shares)} if experiment else None,
            "rules": [rule.name for rule in self.settings.rules],
            "parity": self.parity,
            "load_error": self.load_error,
        }

    def gauges(self) -> dict[str, float]:
        """What is so now, for the ledger."""
        return {"waiting_tokens": float(sum(student.queue.num_waiting_tokens for student in self.students.values()))}

    def close(self) -> None:
        """Write what the decision log still holds."""
        self._decisions.close()

    async def _scored(
        self,
        student: ServedStudent,
        query: str,
        items: Sequence[Mapping[str, Any]],
        deadline_ms: float | None,
        has_latents: bool,
    ) -> Scored:
        deadline_s = time.monotonic() + (deadline_ms or self.settings.deadline_ms) / 1000
        try:
            return await student.answer(query, items, deadline_s, has_latents)
        except OverloadedError as error:
            self.counts.add("overloaded", student.name)
            retry = {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
            raise RefusalError(503, "overloaded", f"too much is waiting: {error}", retry) from None
        except ExpiredError:
            self.counts.add("expired", student.name)
            raise RefusalError(504, "deadline_exceeded", "the deadline passed while the request waited") from None

    def _check_number(self, num_items: int) -> None:
        if num_items > self.settings.max_items:
            message = f"{num_items} items; at most {self.settings.max_items} a request"
            raise RefusalError(413, "too_many_items", message)

    def _arm(self, user_id: str | None) -> str | None:
        experiment = self.settings.experiment
        if experiment is None or user_id is None:
            return None
        arm = assign(user_id, experiment.name, experiment.shares)
        self.counts.add("assigned", arm)
        return arm

    def _model_of(self, arm: str | None) -> str:
        experiment = self.settings.experiment
        return arm if experiment and arm in experiment.arms_with_model and arm is not None else MAIN

    def _rows(
        self, student: ServedStudent, items: Sequence[Mapping[str, Any]], locale: str, probs_NC: np.ndarray
    ) -> tuple[list[dict[str, Any]], list[list[Applied]]]:
        """What is sent about each item, with its explanation, and the rules that applied."""
        schema = student.spec.label_schema
        score_N = probs_NC.astype(np.float64) @ student.gains_C
        tier_N = np.searchsorted(schema.tier_thresholds, score_N, side="right")
        columns = (items, probs_NC.tolist(), probs_NC.argmax(1).tolist(), score_N.tolist(), tier_N.tolist())
        rows, applied_N = [], []
        for item, probs_C, best, score, tier in zip(*columns, strict=True):
            applied = student.rules.apply(item, locale, score, tier)
            final = applied[-1] if applied else Applied("", score, tier)
            for one in applied:
                self.counts.add("rule_applications", one.rule)
            applied_N.append(applied)
            rows.append(
                {
                    "item_id": item["item_id"],
                    "probs": dict(zip(schema.names, probs_C, strict=True)),
                    "label": schema.names[best],
                    "score": final.score,
                    "tier": final.tier,
                    "filtered": final.tier in FILTERED_TIERS,
                    "explanation": {
                        "score": score,
                        "tier": tier,
                        "rules": [{"rule": one.rule, "score": one.score, "tier": one.tier} for one in applied],
                    },
                }
            )
        return rows, applied_N

    def _note(
        self,
        request: ScoreRequest,
        student: ServedStudent,
        arm: str | None,
        rows: Sequence[Mapping[str, Any]],
        applied_N: Sequence[Sequence[Applied]],
        is_shadow: bool,
    ) -> None:
        names = ("item_id", "label", "score", "tier")
        item_ids, labels, scores, tiers = ([row[name] for row in rows] for name in names)
        self._decisions.note(
            Decision(
                user_id=request.user_id,
                arm=arm,
                model=student.fingerprint,
                is_shadow=is_shadow,
                locale=request.locale,
                query=request.query,
                item_ids=item_ids,
                labels=labels,
                scores=scores,
                tiers=tiers,
                rules=[[one.rule for one in applied] for applied in applied_N],
            )
        )

    def _start_shadow(self, request: ScoreRequest, items: Sequence[Mapping[str, Any]]) -> None:
        """The shadow scores what the others leave it time for: it must cost nobody an answer."""
        if SHADOW not in self.students:
            return
        is_busy = any(student.queue.num_waiting_tokens for student in self.students.values())
        if is_busy or len(self._shadows) >= MAX_SHADOWS:
            self.counts.add("shadow", "dropped")
            return
        task = asyncio.create_task(self._shadow(request, items))
        self._shadows.add(task)  # the loop itself keeps no task alive
        task.add_done_callback(self._shadows.discard)

    async def _shadow(self, request: ScoreRequest, items: Sequence[Mapping[str, Any]]) -> None:
        student = self.students[SHADOW]
        try:
            scored = await self._scored(student, request.query, items, None, False)
        except RefusalError:
            self.counts.add("shadow", "dropped")
            return
        rows, applied_N = self._rows(student, items, request.locale, scored.probs_NC)
        self._note(request, student, None, rows, applied_N, is_shadow=True)
        self.counts.add("shadow", "scored")
