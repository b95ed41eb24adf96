"""What /openapi.json says without a tool that reads it; `tests/clients` asks by it."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_runtime import CHATTING, CODEC, ScriptedRuntime

from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway import generation
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine


@pytest.fixture(scope="module")
def paths() -> dict[str, Any]:
    engine = InProcessEngine(EngineCore(ScriptedRuntime(facts=CHATTING)))
    return create_app(engine, CODEC, Settings()).openapi()["paths"]


def test_a_route_stands_alone(paths: dict[str, Any]) -> None:
    route = paths["/v1/chat/completions"]["post"]
    assert "422" not in route["responses"]
    schema = route["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["messages"]
    assert schema["properties"]["messages"]["items"]["properties"]["role"]["enum"]
    assert "$ref" not in str(route)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_every_end_that_the_engine_gives_a_request_is_an_answer(
    path: str, paths: dict[str, Any]
) -> None:
    ended = {str(status) for status in generation.STATUSES.values()}
    assert ended <= set(paths[path]["post"]["responses"])
