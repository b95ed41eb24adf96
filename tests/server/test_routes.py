"""What each path answers to each method."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import openai
import pytest
from fake_runtime import FakeRuntime
from http_server import running

from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.tokenizer import IdCodec

NAME = "deepseek/tiny v3.2"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    engine = InProcessEngine(EngineCore(FakeRuntime()))
    with running(create_app(engine, IdCodec(), Settings(model=NAME))) as url:
        yield httpx.Client(base_url=url, timeout=20)


def test_a_model_is_found_by_its_name_as_it_is(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()["data"][0]
    openai_client = openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none")
    assert openai_client.models.retrieve(NAME).to_dict() == listed
    assert client.get("/v1/models/deepseek/tiny%20v3.2").json() == listed
    with pytest.raises(openai.NotFoundError, match="'other' is not served here") as refused:
        openai_client.models.retrieve("other")
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("path", ["/health", "/ready", "/v1/models"])
def test_head_is_get_without_the_body(client: httpx.Client, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "content-type"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/completions", "POST"),
        ("HEAD", "/v1/completions", "POST"),
        ("DELETE", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/models", "GET, HEAD"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("OPTIONS", "/health", "GET, HEAD"),
    ],
)
def test_another_method_is_405_and_says_which_are_allowed(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        error = answer.json()["error"]
        assert (error["code"], error["type"]) == ("method_not_allowed", "invalid_request_error")
    missing = client.request(method, "/v2")
    assert missing.status_code == 404
    assert "allow" not in missing.headers
