"""schemathesis sends what the OpenAPI document allows, and what it does not: never a 5xx."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode

from tests.server.running import Running

OPERATIONS = [
    ("/transcribe", "POST"),
    ("/v1/audio/transcriptions", "POST"),
    ("/v1/audio/translations", "POST"),
    ("/v1/models", "GET"),
    ("/v1/models/{model}", "GET"),
    ("/health", "GET"),
    ("/ready", "GET"),
    ("/metrics", "GET"),
]


@pytest.fixture(scope="module")
def document(server: Running) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def test_every_operation_is_tried(server: Running) -> None:
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    there = {(path, method.upper()) for path, methods in paths.items() for method in methods}
    assert there == set(OPERATIONS)


VALID = [(path, method, GenerationMode.POSITIVE) for path, method in OPERATIONS]
INVALID = [(path, method, GenerationMode.NEGATIVE) for path, method in OPERATIONS if method == "POST"]


@pytest.mark.parametrize(("path", "method", "mode"), VALID + INVALID)
def test_no_request_makes_the_server_fail(document: Any, path: str, method: str, mode: GenerationMode) -> None:
    operation = document[path][method]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate], database=None
    )
    def send(case: Any) -> None:
        case.call_and_validate(checks=[not_a_server_error])

    send()
