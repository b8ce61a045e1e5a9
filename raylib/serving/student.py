"""One student of a replica: its tokenizer, its queue before the model, its cache. N items of a request, C classes."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from raylib.errors import InputError, ParityError
from raylib.serving.batches import join
from raylib.serving.cache import ScoreCache, cache_keys
from raylib.serving.counts import Counts
from raylib.serving.parity import ParitySample
from raylib.serving.queue import TokenQueue
from raylib.serving.rules import Rules
from raylib.serving.settings import ModelRef, ServerSettings, artifact_fingerprint
from raylib.student.data import TokenPairs, item_text

WARM_UP_WORDS = (1, 8, 64)  # lengths of the pairs that are scored before the first request
NUM_ALONE = 32  # pairs of the parity sample that are also scored one by one


@dataclass(frozen=True)
class Scored:
    """A student's answer to one request."""

    probs_NC: np.ndarray
    latents_NR: np.ndarray | None  # None unless asked for
    num_tokens: int  # that the model read; none for cached items


class ServedStudent:
    """Loads an artifact; `model_thread` is shared by the students of a replica: two at once only slow each other."""

    def __init__(
        self, name: str, model: ModelRef, settings: ServerSettings, model_thread: ThreadPoolExecutor, counts: Counts
    ) -> None:
        """Raises InputError when the artifact is damaged, or not or no longer the one that was chosen."""
        from raylib.student.inference import Scorer

        self._check(model)
        self._scorer = Scorer(model.path, settings.dtype)
        self._check(model)  # replaced while it was read: part of it may be of each
        self.name, self.fingerprint = name, model.fingerprint
        self.spec = self._scorer.spec
        self.gains_C = np.asarray(self.spec.label_schema.gains)
        self.rules = Rules(settings.rules, self.spec.label_schema.tier_thresholds)
        self.cache = ScoreCache(settings.cache_items)
        self.queue = TokenQueue(self._scored, settings.batch_tokens, settings.max_wait_ms / 1000)
        self._counts = counts
        self._model_thread = model_thread
        self._tokeniser_thread = ThreadPoolExecutor(1)  # the tokenizer is not safe to share
        self._scorer.score([{"query": "warm up", "title": "warm up " * length} for length in WARM_UP_WORDS])

    async def answer(
        self, query: str, items: Sequence[Mapping[str, Any]], deadline_s: float, has_latents: bool = False
    ) -> Scored:
        """Score the items of a query; raises what the queue raises."""
        self._counts.add("items", self.name, amount=len(items))
        if not self.cache.is_on or has_latents:
            probs_NC, latents_NR, num_tokens = await self._compute(query, items, deadline_s)
            return Scored(probs_NC, latents_NR if has_latents else None, num_tokens)
        keys = cache_keys(query, [item_text(item, self.spec.item_fields) for item in items])
        found = self.cache.find(keys)
        missing = [row for row, probs_C in enumerate(found) if probs_C is None]
        self._counts.add("cache_hits", self.name, amount=len(items) - len(missing))
        self._counts.add("cache_misses", self.name, amount=len(missing))
        num_tokens = 0
        if missing:
            probs_MC, _, num_tokens = await self._compute(query, [items[row] for row in missing], deadline_s)
            self.cache.keep([keys[row] for row in missing], probs_MC)
            for row, probs_C in zip(missing, probs_MC, strict=True):
                found[row] = probs_C
        return Scored(np.stack([probs_C for probs_C in found if probs_C is not None]), None, num_tokens)

    def check_parity(self, sample: ParitySample, tolerance: float) -> dict[str, Any]:
        """Score the stored sample as requests are, all together and some one by one, before anybody else may ask.

        Returns rows compared and the largest differences of a probability: from the offline table, and of a pair alone
        from the same pair in a large batch. Raises ParityError when one of them is above `tolerance`.
        """
        tokens = self._scorer.tokenise(sample.pairs)
        together_NC = self._predict([tokens])[0][0] if sample.pairs else np.zeros((0, len(self.gains_C)))
        offline_NC = np.array([sample.probs[pair["pair_id"]] for pair in sample.pairs])
        if offline_NC.size and offline_NC.shape[1] != len(self.gains_C):
            raise ParityError(f"{self.name}: the sample's scores are of another label schema than the student")
        alone_AC = [self._predict([tokens.take(np.array([row]))])[0][0][0] for row in range(len(tokens))[:NUM_ALONE]]
        found = {
            "num_rows": len(sample.pairs),
            "max_abs_difference": _largest(together_NC, offline_NC),
            "max_abs_batch_difference": _largest(together_NC[:NUM_ALONE], np.array(alone_AC)),
        }
        worst = max(found["max_abs_difference"], found["max_abs_batch_difference"])
        if not worst <= tolerance:
            raise ParityError(
                f"{self.name} {self.fingerprint}: not ready: probabilities differ by up to {worst:.3g} from the stored"
                f" sample or from each other (tolerance {tolerance:.3g}); is it the student that wrote the scores?"
            )
        return found

    async def _compute(
        self, query: str, items: Sequence[Mapping[str, Any]], deadline_s: float
    ) -> tuple[np.ndarray, np.ndarray, int]:
        pairs = [{"query": query, **item} for item in items]
        loop = asyncio.get_running_loop()
        tokens = await loop.run_in_executor(self._tokeniser_thread, self._scorer.tokenise, pairs)
        probs_NC, latents_NR = await self.queue.submit(tokens, deadline_s)
        return probs_NC, latents_NR, int(tokens.lengths_N.sum())

    async def _scored(self, requests: Sequence[TokenPairs]) -> Sequence[Any]:
        self._counts.add("batches", self.name)
        self._counts.add("tokens", self.name, amount=sum(int(tokens.lengths_N.sum()) for tokens in requests))
        return await asyncio.get_running_loop().run_in_executor(self._model_thread, self._predict, requests)

    def _predict(self, requests: Sequence[TokenPairs]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Probabilities [N, C] and latents [N, R] of each request's pairs, in one pass over all of them."""
        from raylib.student.inference import predict_with_latents

        probs_NC, latents_NR = predict_with_latents(self._scorer.student, self._scorer.tokenizer, join(requests))
        ends = np.cumsum([len(tokens) for tokens in requests])[:-1]
        return list(zip(np.split(probs_NC, ends), np.split(latents_NR, ends), strict=True))

    @staticmethod
    def _check(model: ModelRef) -> None:
        try:
            found = artifact_fingerprint(model.path)
        except OSError as error:
            raise InputError(f"{model.path}: no whole student artifact ({error}); distil again or restore it") from None
        if found != model.fingerprint:
            raise InputError(
                f"{model.path}: holds student {found}, not {model.fingerprint}, which was chosen; it was replaced "
                "meanwhile: load it again"
            )


def _largest(one_NC: np.ndarray, other_NC: np.ndarray) -> float:
    return float(np.abs(one_NC - other_NC).max()) if len(one_NC) else 0.0
