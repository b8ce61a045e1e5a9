"""The students of a replica: each with its tokenizer and its queue before the model.

N items of a request, C classes, R width of the latent.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from raylib.errors import InputError, ParityError, TricotError
from raylib.serving.batches import join
from raylib.serving.counts import Counts
from raylib.serving.parity import ParitySample, load_sample
from raylib.serving.queue import ExpiredError, OverloadedError, TokenQueue
from raylib.serving.settings import MAIN, SHADOW, ModelRef, ServerSettings, artifact_fingerprint
from raylib.student.data import TokenPairs
from raylib.student.model import StudentSpec

WARM_UP_WORDS = (1, 8, 64)  # lengths of the pairs that are scored before the first request
NUM_ALONE = 32  # pairs of the parity sample that are also scored one by one


@dataclass(frozen=True)
class Scored:
    """A student's answer to one request."""

    fingerprint: str  # of the student that answered
    probs_NC: np.ndarray
    latents_NR: np.ndarray | None  # None unless asked for
    num_tokens: int
    seconds: float = 0.0  # in the replica


@dataclass(frozen=True)
class NotScored:
    """Why there is no answer."""

    reason: Literal["overloaded", "queue_full", "expired", "unknown_model"]
    retry_after_s: float = 0.0


@dataclass(frozen=True)
class Facts:
    """What a replica serves: fingerprint and description of each student by name, and how the last loading went."""

    models: Mapping[str, tuple[str, StudentSpec]]
    parity: dict[str, Any] | None
    load_error: str | None  # why the students that were last asked for are not the ones that serve


class Students:
    """All students of a replica. They share one thread: two forward passes at once only slow each other."""

    def __init__(self, settings: ServerSettings, counts: Counts) -> None:
        self._settings, self._counts = settings, counts
        self._model_thread = ThreadPoolExecutor(1)
        self._students: Mapping[str, ServedStudent] = {}
        self._parity: dict[str, Any] | None = None
        self._load_error: str | None = None

    def load(self, models: Mapping[str, ModelRef], parity_file: str | None) -> None:
        """Load students and put them in place of those that serve, once all are there and pass the parity gate.

        A failure leaves those that serve where they are, and is raised only when there are none. Blocks; requests are
        answered meanwhile, more slowly.
        """
        try:
            loaded = {
                name: ServedStudent(name, model, self._settings, self._model_thread, self._counts)
                for name, model in models.items()
            }
            sample = load_sample(Path(parity_file)) if parity_file else None
            parity = loaded[MAIN].check_parity(sample, self._settings.tolerance) if sample else None
        except TricotError as error:
            self._load_error = str(error)
            if not self._students:
                raise
            print(f"keeping {self._students[MAIN].fingerprint}: {error}", flush=True)
            return
        # Requests on the way hold the old student, which ends with the last of them.
        self._students, self._parity, self._load_error = loaded, parity, None

    async def score(
        self, name: str, query: str, items: Sequence[Mapping[str, Any]], remaining_s: float, has_latents: bool
    ) -> Scored | NotScored:
        """The answer of a student, if it comes within `remaining_s`."""
        student = self._students.get(name)
        if student is None:
            return NotScored("unknown_model")
        if name == SHADOW and self.num_waiting_tokens:  # it gets what time the others leave
            return NotScored("overloaded")
        self._counts.add("items", name, amount=len(items))
        came_s = time.monotonic()
        try:
            scored = await student.score(query, items, came_s + remaining_s, has_latents)
            return replace(scored, seconds=time.monotonic() - came_s)
        except OverloadedError as error:
            self._counts.add("overloaded", name)
            return NotScored("overloaded", error.retry_after_s)
        except ExpiredError:
            self._counts.add("expired", name)
            return NotScored("expired")

    async def facts(self) -> Facts:
        """What is served now."""
        models = {name: (student.fingerprint, student.spec) for name, student in self._students.items()}
        return Facts(models, self._parity, self._load_error)

    @property
    def num_waiting_tokens(self) -> int:
        """Tokens that wait in all queues."""
        return sum(student.queue.num_waiting_tokens for student in self._students.values())


class ServedStudent:
    """One student."""

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
        self.queue = TokenQueue(self._scored, settings.batch_tokens, settings.max_wait_ms / 1000)
        self._counts = counts
        self._model_thread = model_thread
        self._tokeniser_thread = ThreadPoolExecutor(1)  # the tokenizer is not safe to share
        self._scorer.score([{"query": "warm up", "title": "warm up " * length} for length in WARM_UP_WORDS])

    async def score(
        self, query: str, items: Sequence[Mapping[str, Any]], deadline_s: float, has_latents: bool
    ) -> Scored:
        """Score the items of a query; `deadline_s` is a moment of the monotonic clock. Raises what the queue raises."""
        pairs = [{"query": query, **item} for item in items]
        loop = asyncio.get_running_loop()
        tokens = await loop.run_in_executor(self._tokeniser_thread, self._scorer.tokenise, pairs)
        probs_NC, latents_NR = await self.queue.submit(tokens, deadline_s)
        num_tokens = int(tokens.lengths_N.sum())
        return Scored(self.fingerprint, probs_NC, latents_NR if has_latents else None, num_tokens)

    def check_parity(self, sample: ParitySample, tolerance: float) -> dict[str, Any]:
        """Score the stored sample as requests are, all together and some one by one, before anybody else may ask.

        Returns rows compared and the largest differences of a probability: from the offline table, and of a pair alone
        from the same pair in a large batch. Raises ParityError when one of them is above `tolerance`.
        """
        tokens = self._scorer.tokenise(sample.pairs)
        num_classes = len(self.spec.label_schema.names)
        together_NC = self._predict([tokens])[0][0] if sample.pairs else np.zeros((0, num_classes))
        offline_NC = np.array([sample.probs[pair["pair_id"]] for pair in sample.pairs])
        if offline_NC.size and offline_NC.shape[1] != num_classes:
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
