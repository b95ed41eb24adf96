"""What /openapi.json says without a tool that reads it; `tests/clients` asks by it."""

from __future__ import annotations

from pathlib import Path
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


def test_every_route_is_in_the_table_of_the_page(paths: dict[str, Any]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "http.md").read_text(encoding="utf-8")
    for path, methods in paths.items():
        for method in methods:
            shown = f"`{method.upper()} {path.replace('{wanted}', '{id}')}`"
            assert shown in page, f"{shown} stands in no row of docs/http.md"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/api/chat"])
def test_every_end_that_the_engine_gives_a_request_is_an_answer(
    path: str, paths: dict[str, Any]
) -> None:
    ended = {str(status) for status in generation.STATUSES.values()}
    assert ended <= set(paths[path]["post"]["responses"])
