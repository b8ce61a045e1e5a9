"""The HTTP side of a replica: routes, limits, access and the page, on FastAPI. Knows nothing of Ray."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Header, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import HTMLResponse
from pydantic_core import to_json

from raylib.serving.access import Access
from raylib.serving.counts import Measured
from raylib.serving.refusals import BodyLimit, add_refusals
from raylib.serving.rerank import RerankRequest
from raylib.serving.schemas import ErrorResponse, ModelResponse, ScoreRequest, ScoreResponse
from raylib.serving.service import Service

PAGE = Path(__file__).parent / "page.html"
PATHS = ("/", "/v1/score", "/v1/model", "/rerank", "/healthz", "/readyz", "/metrics", "/openapi.json")
# The page has its style and script within itself and asks nobody but this server.
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
Deadline = Annotated[int | None, Header(ge=1, le=600_000, description="milliseconds from now")]
REFUSED = (401, 413, 422, 429, 503, 504)
REFUSALS: dict[int | str, dict[str, Any]] = {status: {"model": ErrorResponse} for status in REFUSED}
OPEN: dict[int | str, dict[str, Any]] = {401: {"model": ErrorResponse}}


def build_app(service: Service, exposition: Callable[[], Awaitable[bytes]]) -> FastAPI:
    """The application of one replica; `exposition` gives what /metrics says of all replicas."""
    # FastAPI's own pages of documentation load scripts from elsewhere; /openapi.json says the same.
    app = FastAPI(title="tricot student", description="Relevance of items to a query.", docs_url=None, redoc_url=None)
    settings = service.settings
    add_refusals(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(Access, digests=lambda: service.policy.key_digests)
    if settings.cors_origins:
        headers = ("authorization", "content-type", "x-deadline-ms")
        origins = list(settings.cors_origins)
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=("GET", "POST"), allow_headers=headers)
    app.add_middleware(Measured, counts=service.counts, paths=PATHS)  # the outermost: it counts the refusals too

    @app.post("/v1/score", response_model=ScoreResponse, responses=REFUSALS)
    async def score(request: ScoreRequest, x_deadline_ms: Deadline = None) -> Response:
        """Score the items of one query.

        Past the deadline, in milliseconds from now, nobody waits for the answer: it is then refused with 504, and
        with 503 and Retry-After at once when it cannot be met or too much is waiting, 429 when too many are.
        """
        return _json(await service.score(request, x_deadline_ms))

    @app.post("/rerank", responses=REFUSALS)
    async def rerank(request: RerankRequest, x_deadline_ms: Deadline = None) -> Response:
        """Order texts for a query, as clients of text-embeddings-inference and Infinity ask; deadlines as above."""
        return _json(await service.rerank(request, x_deadline_ms))

    @app.get("/v1/model", response_model=ModelResponse, responses=OPEN)
    async def model() -> Response:
        """What is being served, and its limits."""
        return _json(service.describe())

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """A replica is alive."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        """A replica has loaded and warmed up the student; before that the proxy itself refuses."""
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response, responses=OPEN)
    async def metrics() -> Response:
        """Counts of all replicas in Prometheus' text format."""
        return Response(await exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        """A page on which to try the student."""
        return HTMLResponse(PAGE.read_text(), headers={"Content-Security-Policy": PAGE_POLICY})

    return app


def _json(content: Any) -> Response:
    """The answer as it is: validating it against its own type once more would cost as much as scoring on a GPU."""
    return Response(to_json(content), media_type="application/json")
