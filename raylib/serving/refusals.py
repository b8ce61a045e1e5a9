"""How requests are refused: always JSON with a machine-readable reason, never an echo of what was sent."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from raylib.serving.schemas import MAX_BODY_BYTES, ErrorResponse, Problem

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
REASONS = {400: "invalid_body", 404: "unknown_path", 405: "wrong_method"}
MAX_PROBLEMS = 20  # listed in one answer


class RefusalError(Exception):
    """Raised in a handler to answer with `status` and an ErrorResponse."""

    def __init__(self, status: int, reason: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers
        self.body = ErrorResponse(reason=reason, message=message)


class BodyLimit:
    """ASGI middleware that answers 413 as soon as a body is larger than MAX_BODY_BYTES, declared or streamed."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the whole body, then pass it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = RefusalError(413, "body_too_large", f"the body may hold at most {MAX_BODY_BYTES} bytes")
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
            await answer_refusal(refusal)(scope, receive, send)
            return
        messages, num_bytes, has_more = [], 0, True
        while has_more:
            message = await receive()
            messages.append(message)
            num_bytes += len(message.get("body", b""))
            has_more = bool(message.get("more_body", False))
            if num_bytes > MAX_BODY_BYTES:
                await answer_refusal(refusal)(scope, receive, send)
                return
        replayed = iter(messages)

        async def replay() -> MutableMapping[str, Any]:
            message = next(replayed, None)
            return await receive() if message is None else message

        await self.app(scope, replay, send)


def add_refusals(app: FastAPI) -> None:
    """Give an application the handlers below."""
    app.add_exception_handler(RequestValidationError, _wrong_fields)
    app.add_exception_handler(RefusalError, _refused)
    app.add_exception_handler(HTTPException, _http_error)


async def _wrong_fields(_: Request, error: Any) -> JSONResponse:
    """422 that names each wrong field."""
    problems = [
        Problem(field=".".join(str(part) for part in detail["loc"][1:]) or "body", message=detail["msg"])
        for detail in error.errors()[:MAX_PROBLEMS]
    ]
    body = ErrorResponse(reason="invalid_request", message="the request has wrong fields", problems=problems)
    return JSONResponse(body.model_dump(), 422)


async def _refused(_: Request, error: Any) -> JSONResponse:
    return answer_refusal(error)


async def _http_error(_: Request, error: Any) -> JSONResponse:
    """FastAPI's own refusals: unknown path, wrong method, a body that is not UTF-8 (422, like other bad bodies)."""
    body = ErrorResponse(reason=REASONS.get(error.status_code, "http_error"), message=str(error.detail))
    return JSONResponse(body.model_dump(), 422 if error.status_code == 400 else error.status_code)


def answer_refusal(refusal: RefusalError) -> JSONResponse:
    """The response that a refusal becomes."""
    return JSONResponse(refusal.body.model_dump(), refusal.status, refusal.headers)
