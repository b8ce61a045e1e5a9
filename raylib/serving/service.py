"""What happens to a request before and after a student: arms, cache, rules, decisions. Without HTTP and without Ray.

N items of a request, C classes.
"""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from raylib.abtest.assignment import assign
from raylib.serving.cache import ScoreCache, cache_keys
from raylib.serving.counts import Counts
from raylib.serving.decisions import Decision, DecisionLog
from raylib.serving.refusals import RefusalError
from raylib.serving.rerank import RerankRequest, ranked
from raylib.serving.rules import Applied, Rules
from raylib.serving.schemas import ScoreRequest
from raylib.serving.settings import MAIN, SHADOW, Policy, ServerSettings
from raylib.serving.students import Facts, NotScored, Scored
from raylib.student.data import item_text
from raylib.student.model import StudentSpec

FILTERED_TIERS = (0, 1)  # before ranking (arXiv 2601.21611)
MAX_SHADOWS = 4  # requests for the shadow model under way at the same time; more are dropped
Items = Sequence[Mapping[str, Any]]


class Backend(Protocol):
    """The students of this process, or of replicas elsewhere."""

    async def score(
        self, name: str, query: str, items: Items, remaining_s: float, has_latents: bool
    ) -> Scored | NotScored:
        """As `Students.score`."""

    async def facts(self) -> Facts:
        """As `Students.facts`."""


class Known(NamedTuple):
    """What is known of a student."""

    spec: StudentSpec
    gains_C: np.ndarray
    rules: Rules


class Service:
    """Answers requests; `refresh` says before the first one, and whenever students are exchanged, what they are."""

    def __init__(self, settings: ServerSettings, backend: Backend, counts: Counts, policy: Policy) -> None:
        self.settings, self.counts, self.policy = settings, counts, policy
        self._backend = backend
        self._facts = Facts({}, None, None)
        self._known: dict[str, Known] = {}  # by fingerprint
        self._cache = ScoreCache(settings.cache_items)
        self._shadows: set[asyncio.Task[None]] = set()
        self._decisions = DecisionLog(
            settings.decisions, lambda result, rows: self.counts.add("decisions", result, amount=rows)
        )

    async def refresh(self) -> None:
        """Ask what is served now."""
        self._facts = await self._backend.facts()
        self._known |= {
            fingerprint: Known(spec, np.asarray(spec.label_schema.gains), self._rules(spec))
            for fingerprint, spec in self._facts.models.values()
            if fingerprint not in self._known
        }

    def adopt(self, policy: Policy) -> None:
        """Go by other rules and keys from the next request on."""
        if policy != self.policy:
            self.policy = policy
            self._known = {name: known._replace(rules=self._rules(known.spec)) for name, known in self._known.items()}

    async def score(self, request: ScoreRequest, deadline_ms: int | None) -> dict[str, Any]:
        """The answer to POST /v1/score; raises RefusalError."""
        self._check_number(len(request.items))
        arm = self._arm(request.user_id)
        name = request.model or self._model_of(arm)
        items = [item.model_dump() for item in request.items]
        scored = await self._scored(name, request.query, items, deadline_ms, request.latent)
        rows, applied_N = self._rows(scored, items, request.locale)
        for row, latent_R in zip(rows, scored.latents_NR if scored.latents_NR is not None else (), strict=False):
            row["latent"] = latent_R.tolist()
        if not request.explain:
            for row in rows:
                del row["explanation"]
        if request.model is None:
            self._note(request, scored.fingerprint, arm, rows, applied_N, is_shadow=False)
            self._start_shadow(request, items)
        return {"model": name, "fingerprint": scored.fingerprint, "arm": arm, "items": rows}

    async def rerank(self, request: RerankRequest, deadline_ms: int | None) -> Any:
        """The answer to POST /rerank; raises RefusalError."""
        self._check_number(len(request.candidates))
        items = [{"title": text} for text in request.candidates]
        scored = await self._scored(MAIN, request.query, items, deadline_ms, False)
        scores = (scored.probs_NC.astype(np.float64) @ self._known[scored.fingerprint].gains_C).tolist()
        return ranked(request, scores, scored.fingerprint, scored.num_tokens)

    def describe(self) -> dict[str, Any]:
        """The answer to GET /v1/model."""
        (fingerprint, spec), experiment = self._facts.models[MAIN], self.settings.experiment
        schema = spec.label_schema
        return {
            "fingerprint": fingerprint,
            "label_schema": schema.name,
            "classes": list(schema.names),
            "gains": list(schema.gains),
            "tier_thresholds": list(schema.tier_thresholds),
            "temperature": spec.temperature,
            "extractor": spec.extractor,
            "item_fields": list(spec.item_fields),
            "max_length": spec.max_length,
            "max_items": self.settings.max_items,
            "dtype": self.settings.dtype,
            "models": {name: known[0] for name, known in self._facts.models.items()},
            "experiment": {"name": experiment.name, "shares": dict(experiment.shares)} if experiment else None,
            "rules": [rule.name for rule in self.policy.rules],
            "parity": self._facts.parity,
            "load_error": self._facts.load_error,
        }

    def close(self) -> None:
        """Write what the decision log still holds."""
        self._decisions.close()

    async def _scored(
        self, name: str, query: str, items: Items, deadline_ms: float | None, has_latents: bool
    ) -> Scored:
        """From the cache or a student; its fingerprint is a known one."""
        if name not in self._facts.models:
            raise _unknown(self._facts)
        deadline_s = time.monotonic() + (deadline_ms or self.settings.deadline_ms) / 1000
        if not self._cache.is_on or has_latents:
            return await self._computed(name, query, items, deadline_s, has_latents)
        fingerprint, spec = self._facts.models[name]
        keys = cache_keys(f"{fingerprint} {query}", [item_text(item, spec.item_fields) for item in items])
        found = self._cache.find(keys)
        missing = [row for row, probs_C in enumerate(found) if probs_C is None]
        self.counts.add("cache_hits", name, amount=len(items) - len(missing))
        self.counts.add("cache_misses", name, amount=len(missing))
        num_tokens = 0
        if missing:
            scored = await self._computed(name, query, [items[row] for row in missing], deadline_s, False)
            if scored.fingerprint != fingerprint:  # exchanged meanwhile: what is remembered is of another student
                return await self._computed(name, query, items, deadline_s, False)
            self._cache.keep([keys[row] for row in missing], scored.probs_NC)
            for row, probs_C in zip(missing, scored.probs_NC, strict=True):
                found[row] = probs_C
            num_tokens = scored.num_tokens
        probs_NC = np.stack([probs_C for probs_C in found if probs_C is not None])
        return Scored(fingerprint, probs_NC, None, num_tokens)

    async def _computed(self, name: str, query: str, items: Items, deadline_s: float, has_latents: bool) -> Scored:
        answer = await self._backend.score(name, query, items, deadline_s - time.monotonic(), has_latents)
        if isinstance(answer, NotScored):
            retry = {"Retry-After": str(max(1, math.ceil(answer.retry_after_s)))}
            if answer.reason == "overloaded":
                raise RefusalError(503, "overloaded", f"{answer.retry_after_s:.3f} s of work are waiting", retry)
            if answer.reason == "queue_full":
                raise RefusalError(429, "queue_full", "as many requests are waiting as may", retry)
            if answer.reason == "unknown_model":
                raise _unknown(self._facts)
            raise RefusalError(504, "deadline_exceeded", "the deadline passed while the request waited")
        if answer.fingerprint not in self._known:
            await self.refresh()
        return answer

    def _rules(self, spec: StudentSpec) -> Rules:
        return Rules(self.policy.rules, spec.label_schema.tier_thresholds)

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

    def _rows(self, scored: Scored, items: Items, locale: str) -> tuple[list[dict[str, Any]], list[list[Applied]]]:
        """What is sent about each item, with its explanation, and the rules that applied."""
        known = self._known[scored.fingerprint]
        schema = known.spec.label_schema
        score_N = scored.probs_NC.astype(np.float64) @ known.gains_C
        tier_N = np.searchsorted(schema.tier_thresholds, score_N, side="right")
        best_N = scored.probs_NC.argmax(1)
        columns = (items, scored.probs_NC.tolist(), best_N.tolist(), score_N.tolist(), tier_N.tolist())
        rows, applied_N = [], []
        for item, probs_C, best, score, tier in zip(*columns, strict=True):
            applied = known.rules.apply(item, locale, score, tier)
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
        fingerprint: str,
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
                model=fingerprint,
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

    def _start_shadow(self, request: ScoreRequest, items: Items) -> None:
        """At most a few at a time: the shadow must cost nobody an answer."""
        if SHADOW not in self._facts.models:
            return
        if len(self._shadows) >= MAX_SHADOWS:
            self.counts.add("shadow", "dropped")
            return
        task = asyncio.create_task(self._shadow(request, items))
        self._shadows.add(task)  # the loop itself keeps no task alive
        task.add_done_callback(self._shadows.discard)

    async def _shadow(self, request: ScoreRequest, items: Items) -> None:
        try:
            scored = await self._scored(SHADOW, request.query, items, None, False)
        except RefusalError:
            self.counts.add("shadow", "dropped")
            return
        rows, applied_N = self._rows(scored, items, request.locale)
        self._note(request, scored.fingerprint, None, rows, applied_N, is_shadow=True)
        self.counts.add("shadow", "scored")


def _unknown(facts: Facts) -> RefusalError:
    return RefusalError(422, "unknown_model", f"no such model; models: {', '.join(facts.models)}")
