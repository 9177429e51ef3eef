"""The server keeps to its own OpenAPI document, whatever is sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from steps import TinyPath

from edge_conflayers.profiles import ProfileStore
from edge_conflayers.server.app import make_app
from edge_conflayers.server.opening import Opening, open_service
from edge_conflayers.server.options import ServerOptions

schemathesis = pytest.importorskip("schemathesis")


@pytest.fixture(scope="module")
def api(tiny_path: TinyPath, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    store = ProfileStore(tmp_path_factory.mktemp("profiles"))
    path: Path = tiny_path("llama", n_layer=2)
    opening = Opening(parallel=2, n_ctx=256, threads=1, method="lookup", profiles=store)
    with open_service({"tiny": path}, opening, ServerOptions(max_tokens=4)) as service:
        yield schemathesis.openapi.from_asgi("/openapi.json", make_app(service))


def test_every_request_is_answered(api: Any) -> None:
    operations = [found.ok() for found in api.get_all_operations()]
    assert {each.path for each in operations} >= {"/v1/chat/completions", "/v1/models", "/metrics"}
    statuses = set()

    for operation in operations:

        @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def answers(case: Any) -> None:
            found = case.call()
            statuses.add(found.status_code)
            assert found.status_code < 500, found.text
            if found.status_code >= 400:
                error = found.json()["error"]
                assert error["message"] and error["type"] == "invalid_request_error"

        answers()
    assert {200, 400} <= statuses
