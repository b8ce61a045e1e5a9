"""Requests that nobody would send, made from the OpenAPI description: each is answered or refused as described."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from raylib.serving.web import build_app

CHECKS = (status_code_conformance, content_type_conformance, response_schema_conformance)


async def exposition() -> bytes:
    return b"tricot_replicas 1.0\n"


def statuses_of(operation, mode) -> set[int]:
    """Statuses with which an operation answered what was made up for it."""
    statuses = set()

    @settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        answer = case.call()
        statuses.add(answer.status_code)
        assert answer.status_code != 500
        case.validate_response(answer, checks=CHECKS)

    check()
    return statuses


@pytest.fixture
def operations(make_service):
    app = build_app(make_service(cache_items=5), exposition)
    return [found.ok() for found in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations()]


def test_every_answer_is_one_that_the_description_promises(operations):
    statuses = {operation.path: statuses_of(operation, GenerationMode.POSITIVE) for operation in operations}
    assert statuses.keys() == {"/v1/score", "/rerank", "/v1/model", "/metrics", "/healthz", "/readyz"}
    assert 200 in statuses["/v1/score"]


def test_what_the_description_forbids_is_refused(operations):
    statuses = {one.path: statuses_of(one, GenerationMode.NEGATIVE) for one in operations if one.method == "post"}
    assert 422 in statuses["/v1/score"]
    assert 422 in statuses["/rerank"]
