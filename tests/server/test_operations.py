"""What is served, how far its start is, and what tokens a prompt has, without running it."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_runtime import FakeRuntime
from http_server import running, small_tokenizer
from scripted_runtime import CODEC, LIMITS, ScriptedRuntime
from tokenizers.processors import TemplateProcessing

import lostwax
from lostwax.server.engine.loop import EngineCore
from lostwax.server.formats.encoding_v32 import ASSISTANT, THINK, THINK_END, USER
from lostwax.server.gateway import tokenize
from lostwax.server.gateway.app import create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.settings import Build, Settings
from lostwax.server.gateway.supervised import SupervisedEngine
from lostwax.server.gateway.tokenizer import Codec, IdCodec, TextCodec

ENGINE = Path(__file__).parents[1] / "fake_engine.py"
LATE = (
    "import os, runpy, sys, time; time.sleep(2); del sys.argv[0];"
    " sys.path.insert(0, os.path.dirname(sys.argv[0]));"
    " runpy.run_path(sys.argv[0], run_name='__main__')"
)
"""Begins once the gateway is heard, on a busy machine, too."""
TEXT = "Hello, é!"
CHAT = [{"role": "user", "content": "Hi?"}]


@contextmanager
def served(codec: Codec, settings: Settings | None = None) -> Generator[httpx.Client]:
    runtime = ScriptedRuntime() if codec is CODEC else FakeRuntime()
    engine = InProcessEngine(EngineCore(runtime))
    app = create_app(engine, codec, settings or Settings())
    with running(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def client() -> Generator[httpx.Client]:
    with served(CODEC) as found:
        yield found


def _post(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_version_names_lostwax_and_what_is_served() -> None:
    with served(IdCodec(), Settings(build=Build(6, "ab12", "cpu"))) as client:
        assert client.get("/version").json() == {
            "version": lostwax.__version__,
            "schema": 6,
            "artifact": "ab12",
            "target": "cpu",
        }


def test_startup_is_503_with_progress_until_the_engine_is_ready() -> None:
    engine = SupervisedEngine(
        lambda link: [sys.executable, "-c", LATE, str(ENGINE), link.address, str(link.parent)],
        announce=lambda line: None,
    )
    statuses = list[int]()
    app = create_app(engine, IdCodec(), Settings())
    with running(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        for _ in range(1000):
            answer = client.get("/startup")
            statuses.append(answer.status_code)
            if answer.status_code == 200:
                break
            body = answer.json()
            assert body["status"] == "starting"
            assert body["phase"]
            assert 0 <= body["percent"] < 100
            assert body["seconds_left"] >= 0
            assert int(answer.headers["retry-after"]) >= 1
            time.sleep(0.02)
        body = client.get("/startup").json()
    assert body == {"status": "ready", "phase": None, "percent": 100, "seconds_left": 0}
    assert statuses[0] == 503


def test_tokenize_gives_the_ids_that_a_completion_runs(client: httpx.Client) -> None:
    found = _post(client, "/tokenize", prompt=TEXT)
    assert found["tokens"] == CODEC.encode(TEXT)
    assert found["count"] == len(found["tokens"])
    assert found["max_model_len"] == LIMITS.max_context
    assert found["token_strs"] is None
    named = _post(client, "/tokenize", prompt=TEXT, return_token_strs=True)
    assert named["token_strs"] == [CODEC.piece(token) for token in found["tokens"]]


def test_what_a_tokenizer_puts_around_a_text_may_be_left_out() -> None:
    tokenizer = small_tokenizer()
    end = tokenizer.token_to_id("<end>")
    tokenizer.post_processor = TemplateProcessing(
        single="<end> $A", special_tokens=[("<end>", end)]
    )
    with served(TextCodec(tokenizer)) as client:
        whole = _post(client, "/tokenize", prompt="abc")["tokens"]
        plain = _post(client, "/tokenize", prompt="abc", add_special_tokens=False)["tokens"]
        assert _post(client, "/tokenize", prompt="abc", add_special_tokens=True)["tokens"] == whole
    assert whole == [end, *plain]


def test_tokenize_of_messages_counts_what_a_chat_is_charged(client: httpx.Client) -> None:
    found = _post(client, "/tokenize", messages=CHAT)
    assert CODEC.decode_with_marks(found["tokens"]).endswith(f"Hi?{ASSISTANT}{THINK_END}")
    thinks = _post(client, "/tokenize", messages=CHAT, chat_template_kwargs={"thinking": True})
    assert CODEC.decode_with_marks(thinks["tokens"]).endswith(THINK)


def test_detokenize_gives_back_what_was_tokenized_marks_included(client: httpx.Client) -> None:
    for body in ({"prompt": TEXT}, {"messages": CHAT}):
        tokens = _post(client, "/tokenize", **body)["tokens"]
        text = _post(client, "/detokenize", tokens=tokens)["prompt"]
        assert text == CODEC.decode_with_marks(tokens)
        assert (TEXT if "prompt" in body else f"{USER}Hi?") in text
    assert _post(client, "/detokenize", tokens=[])["prompt"] == ""


def test_names_of_tokens_and_texts_of_ids_are_told_up_to_a_bound(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"prompt": TEXT, "return_token_strs": True}
    count = len(_post(client, "/tokenize", **asked)["token_strs"])
    tokens = _post(client, "/tokenize", prompt=TEXT)["tokens"]
    monkeypatch.setattr(tokenize, "MAX_NAMED", count - 1)
    monkeypatch.setattr(tokenize, "MAX_TEXT_BYTES", 5)
    for path, body, param in (
        ("/tokenize", asked, "return_token_strs"),
        ("/detokenize", {"tokens": tokens}, "tokens"),
    ):
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert _post(client, "/tokenize", prompt=TEXT)["tokens"] == tokens


def test_a_body_that_another_process_reads_is_answered_alike(client: httpx.Client) -> None:
    long = {"messages": [{"role": "user", "content": "x" * 300}] * 2, "model": None}
    padded = long | {"chat_template_kwargs": {"thinking": False}}
    near = _post(client, "/tokenize", **padded)
    far = client.post(
        "/tokenize",
        content=httpx.Request("POST", "http://x", json=padded).content + b" " * 9000,
        headers={"content-type": "application/json"},
    )
    assert far.json() == near


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        ("/tokenize", {}, "invalid_value", "prompt"),
        ("/tokenize", {"prompt": "a", "messages": CHAT}, "invalid_value", "messages"),
        ("/tokenize", {"prompt": ["a"]}, "invalid_value", "prompt"),
        ("/tokenize", {"prompt": "a", "model": "other"}, "model_not_found", "model"),
        ("/tokenize", {"prompt": "a", "max_tokens": 1}, "unknown_parameter", "max_tokens"),
        ("/tokenize", {"prompt": "x" * 200_000}, "context_length_exceeded", "prompt"),
        ("/tokenize", {"messages": []}, "invalid_value", "messages"),
        ("/tokenize", {"messages": CHAT, "tools": [{}]}, "missing_parameter", "tools[0].type"),
        (
            "/tokenize",
            {"messages": CHAT, "add_special_tokens": True},
            "invalid_value",
            "add_special_tokens",
        ),
        ("/detokenize", {}, "missing_parameter", "tokens"),
        ("/detokenize", {"tokens": "abc"}, "invalid_value", "tokens"),
        ("/detokenize", {"tokens": [-1]}, "invalid_value", "tokens[0]"),
        ("/detokenize", {"tokens": [10**6]}, "invalid_value", "tokens"),
        ("/detokenize", {"tokens": [1] * 513}, "context_length_exceeded", "tokens"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    client: httpx.Client, path: str, body: dict[str, Any], code: str, param: str
) -> None:
    answer = client.post(path, json=body)
    error = answer.json()["error"]
    assert answer.status_code == (404 if code == "model_not_found" else 400)
    assert (error["code"], error["param"]) == (code, param)


def test_without_a_tokenizer_both_are_refused() -> None:
    with served(IdCodec()) as client:
        for path, body in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]})):
            answer = client.post(path, json=body)
            assert answer.status_code == 400
            assert "no tokenizer" in answer.json()["error"]["message"]
