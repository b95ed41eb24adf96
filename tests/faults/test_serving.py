"""What is wrong with a port or a request is said at the border of a server of a real artifact."""

from __future__ import annotations

import socket
from collections.abc import Generator
from typing import Any

import httpx
import pytest
from command_line import Run, one_sentence
from http_server import running
from small import SMALL
from small_fixtures import Compiled

from lostwax.backends.runtime.load import load
from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.tokenizer import IdCodec


@pytest.fixture(scope="module")
def client(small_artifact: Compiled) -> Generator[httpx.Client]:
    runtime = load(small_artifact.artifact, checkpoint=small_artifact.checkpoint)
    app = create_app(InProcessEngine(EngineCore(runtime)), IdCodec(), Settings())
    with running(app) as url, httpx.Client(base_url=url, timeout=60) as http:
        yield http


REQUESTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "an id too large": ({"prompt": [1, SMALL["vocab_size"]]}, "invalid_value", "63"),
    "an id far too large": ({"prompt": [2**40]}, "invalid_value", "<= 2147483647"),
    "a negative id": ({"prompt": [-1]}, "invalid_value", "prompt"),
    "a prompt longer than the context": (
        {"prompt": [1] * 600, "max_tokens": 1},
        "context_length_exceeded",
        "512 tokens",
    ),
    "prompt and answer longer than the context": (
        {"prompt": [1] * 500, "max_tokens": 13},
        "context_length_exceeded",
        "shorten the prompt, or lower max_tokens",
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_that_cannot_be_run_is_400_and_the_next_one_runs(
    client: httpx.Client, name: str
) -> None:
    body, code, words = REQUESTS[name]
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert words in error["message"]
    good = client.post("/v1/completions", json={"prompt": [1, 63], "max_tokens": 1})
    assert good.status_code == 200, good.text


def test_a_port_in_use_is_one_sentence(run: Run, small_artifact: Compiled) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        checkpoint = small_artifact.checkpoint
        status, out, err = run(
            "serve", small_artifact.artifact, "--checkpoint", checkpoint, "--port", port
        )
    assert (status, out) == (1, "")
    sentence = one_sentence(err)
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in sentence
    assert "choose another --port" in sentence
