"""The HTTP application: FastAPI in front of the student, as one Ray Serve deployment.

Requests are tokenised as they come and batched by tokens, not by requests: a request of 100 long titles costs what a
hundred requests of one title do. Both steps run in threads, so that health checks are answered while the model works.
What waits, waits in the replica's own queue, which knows deadlines, and not in Serve's.

Ray Serve pickles the ingress class by value when it decorates it, so what it calls is imported, not defined below it.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Header
from ray import serve

from raylib.serving.batches import join
from raylib.serving.queue import ExpiredError, OverloadedError, TokenQueue
from raylib.serving.refusals import RefusalError, add_refusals
from raylib.serving.rerank import RerankRequest, ranked
from raylib.serving.schemas import ErrorResponse, ItemScore, ModelResponse, ScoreRequest, ScoreResponse
from raylib.serving.settings import ServerSettings, artifact_fingerprint
from raylib.student.data import TokenPairs

FILTERED_TIERS = (0, 1)  # before ranking (arXiv 2601.21611)
Deadline = Annotated[int | None, Header(ge=1, le=600_000)]
REFUSALS: dict[int | str, dict[str, Any]] = {status: {"model": ErrorResponse} for status in (413, 422, 503, 504)}

app = FastAPI(title="tricot student", description="Relevance of items to a query.")
add_refusals(app)


@serve.deployment
@serve.ingress(app)
class StudentServer:
    """One replica: the student of one artifact."""

    def __init__(self, settings: ServerSettings) -> None:
        import torch

        from raylib.student.inference import Scorer

        torch.set_num_threads(max(1, int(settings.num_cpus)))
        self._settings = settings
        self._scorer = Scorer(settings.model, settings.dtype)
        self._fingerprint = artifact_fingerprint(settings.model)
        # One thread each: the tokenizer is not safe to share, and two forward passes at once only slow each other.
        self._tokeniser_thread = ThreadPoolExecutor(1)
        self._model_thread = ThreadPoolExecutor(1)
        self._scorer.score([{"query": "warm up", "title": "warm up " * length} for length in (1, 8, 64)])
        self._queue = TokenQueue(self._scored, settings.batch_tokens, settings.max_wait_ms / 1000)

    @app.post("/v1/score", response_model=ScoreResponse, responses=REFUSALS)
    async def score(self, request: ScoreRequest, x_deadline_ms: Deadline = None) -> ScoreResponse:
        """Score the items of one query.

        Past the deadline, in milliseconds from now, nobody waits for the answer: it is then refused with 504, and
        with 503 and Retry-After at once when it cannot be met or too much is waiting.
        """
        pairs = [{"query": request.query, "locale": request.locale, **item.model_dump()} for item in request.items]
        probs_NC, _ = await self._answer(pairs, x_deadline_ms)
        rows = self._rows([item.item_id for item in request.items], probs_NC)
        return ScoreResponse(fingerprint=self._fingerprint, items=rows)

    @app.post("/rerank", responses=REFUSALS)
    async def rerank(self, request: RerankRequest, x_deadline_ms: Deadline = None) -> Any:
        """Order texts for a query, as clients of text-embeddings-inference and Infinity ask; deadlines as above."""
        pairs = [{"query": request.query, "title": text} for text in request.candidates]
        probs_NC, num_tokens = await self._answer(pairs, x_deadline_ms)
        scores = (probs_NC.astype(np.float64) @ np.asarray(self._scorer.spec.label_schema.gains)).tolist()
        return ranked(request, scores, self._fingerprint, num_tokens)

    @app.get("/v1/model", response_model=ModelResponse)
    async def model(self) -> ModelResponse:
        """What is being served, and its limits."""
        spec = self._scorer.spec
        schema = spec.label_schema
        return ModelResponse(
            fingerprint=self._fingerprint,
            label_schema=schema.name,
            classes=list(schema.names),
            gains=list(schema.gains),
            tier_thresholds=list(schema.tier_thresholds),
            extractor=spec.extractor,
            item_fields=list(spec.item_fields),
            max_length=spec.max_length,
            max_items=self._settings.max_items,
        )

    @app.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """A replica is alive."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz(self) -> dict[str, str]:
        """A replica has loaded the student; before that the proxy itself refuses."""
        return {"status": "ready"}

    async def _answer(self, pairs: list[dict[str, Any]], deadline_ms: int | None) -> tuple[np.ndarray, int]:
        """Probabilities [N, C] of pairs and their tokens, or a refusal."""
        deadline_s = time.monotonic() + (deadline_ms or self._settings.deadline_ms) / 1000
        if len(pairs) > self._settings.max_items:
            message = f"{len(pairs)} items; at most {self._settings.max_items} a request"
            raise RefusalError(413, "too_many_items", message)
        loop = asyncio.get_running_loop()
        tokens = await loop.run_in_executor(self._tokeniser_thread, self._scorer.tokenise, pairs)
        try:
            return await self._queue.submit(tokens, deadline_s), int(tokens.lengths_N.sum())
        except OverloadedError as error:
            retry = {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
            raise RefusalError(503, "overloaded", f"too much is waiting: {error}", retry) from None
        except ExpiredError:
            raise RefusalError(504, "deadline_exceeded", "the deadline passed while the request waited") from None

    async def _scored(self, requests: Sequence[TokenPairs]) -> Sequence[np.ndarray]:
        """Probabilities [N, C] of each request's tokenised pairs, in one pass over all of them."""
        return await asyncio.get_running_loop().run_in_executor(self._model_thread, self._predict, requests)

    def _predict(self, requests: Sequence[TokenPairs]) -> list[np.ndarray]:
        from raylib.student.inference import predict_probs

        probs_NC = predict_probs(self._scorer.student, self._scorer.tokenizer, join(requests))
        return np.split(probs_NC, np.cumsum([len(tokens) for tokens in requests])[:-1])

    def _rows(self, item_ids: list[str], probs_NC: np.ndarray) -> list[ItemScore]:
        from raylib.student.inference import score_rows

        schema = self._scorer.spec.label_schema
        rows = []
        for probs_C, row in zip(probs_NC.tolist(), score_rows(item_ids, probs_NC, schema), strict=True):
            answer = {"item_id": row["pair_id"], "probs": dict(zip(schema.names, probs_C, strict=True))}
            answer |= {name: row[name] for name in ("label", "score", "tier")}
            rows.append(ItemScore.model_validate({**answer, "filtered": row["tier"] in FILTERED_TIERS}))
        return rows


def build(settings: ServerSettings) -> serve.Application:
    """The application with its bounds: replicas, queue, batches, draining."""
    autoscaling = {
        "min_replicas": settings.min_replicas,
        "max_replicas": settings.max_replicas,
        "target_ongoing_requests": settings.target_ongoing_requests,
    }
    is_fixed = settings.min_replicas == settings.max_replicas
    scale: dict[str, Any] = {"num_replicas": settings.min_replicas} if is_fixed else {"autoscaling_config": autoscaling}
    application: serve.Application = StudentServer.options(  # type: ignore[attr-defined]
        ray_actor_options={"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus},
        max_ongoing_requests=settings.max_ongoing_requests,
        max_queued_requests=settings.max_queued_requests,
        graceful_shutdown_timeout_s=settings.drain_s,
        graceful_shutdown_wait_loop_s=0.2,
        max_constructor_retry_count=2,
        **scale,
    ).bind(settings)
    return application
