"""`usage` says how much of a prompt was found in the cache, and an option turns the cache off."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import lostwax
from fake_runtime import FakeRuntime
from http_server import running, small_codec
from scripted_runtime import CODEC, LIMITS, ScriptedRuntime
from small_fixtures import Compiled

from lostwax.ir.contract.own_program import own_program
from lostwax.server.engine import process
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.options import EngineOptions
from lostwax.server.gateway import serve as serving
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.supervised import Link
from lostwax.server.gateway.tokenizer import Codec, IdCodec

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5]
"""Two whole pages, and a token."""


@contextmanager
def _served(core: EngineCore, codec: Codec | None = None) -> Generator[httpx.Client]:
    app = create_app(InProcessEngine(core), codec or IdCodec(), Settings())
    with running(app) as url, httpx.Client(base_url=f"{url}/v1", timeout=20) as client:
        yield client


def _usage(client: httpx.Client, path: str = "/completions", **given: Any) -> dict[str, Any]:
    """The usage of a whole answer, or behind a streamed one."""
    body = {"prompt": PROMPT, "max_tokens": 3, "temperature": 0, "ignore_eos": True} | given
    if "messages" in given:
        del body["prompt"]
    if not given.get("stream"):
        return client.post(path, json=body).raise_for_status().json()["usage"]
    body["stream_options"] = {"include_usage": True}
    *_, last, done = client.post(path, json=body).raise_for_status().text.split("\n\n")[:-1]
    assert done == "data: [DONE]"
    return json.loads(last.removeprefix("data: "))["usage"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_completion_tells_how_much_of_its_prompt_was_found(stream: bool) -> None:
    with _served(EngineCore(FakeRuntime())) as client:
        for found in (0, 8):
            assert _usage(client, stream=stream) == {
                "prompt_tokens": 9,
                "completion_tokens": 3,
                "total_tokens": 12,
                "prompt_tokens_details": {"cached_tokens": found},
            }


@pytest.mark.parametrize("stream", [False, True])
def test_what_several_prompts_found_is_added_up(stream: bool) -> None:
    with _served(EngineCore(FakeRuntime())) as client:
        _usage(client)
        usage = _usage(client, prompt=[PROMPT, [7] * 9, PROMPT[:6]], stream=stream)
    assert usage["prompt_tokens"] == 24
    assert usage["prompt_tokens_details"] == {"cached_tokens": 8 + 0 + 4}


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_cut_by_a_stop_string_tells_it_too(stream: bool) -> None:
    """The gateway finds the end, and cancels the request."""
    with _served(EngineCore(FakeRuntime()), small_codec()) as client:
        given: dict[str, Any] = {"prompt": "Hello, hello", "max_tokens": 30, "stream": stream}
        body = given | {"temperature": 0, "ignore_eos": True, "stream": False}
        text = client.post("/completions", json=body).json()["choices"][0]["text"]
        usage = _usage(client, stop=[text[4:6]], **given)
    assert usage["completion_tokens"] < 30
    assert usage["prompt_tokens_details"] == {"cached_tokens": 8}


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_tells_how_much_of_its_prompt_was_found(stream: bool) -> None:
    runtime = ScriptedRuntime()
    runtime.script = CODEC.encode("Tom.")
    messages = [{"role": "user", "content": "What is the name of my cat, and why?"}]
    with _served(EngineCore(runtime), CODEC) as client:
        first = _usage(client, "/chat/completions", messages=messages, stream=stream)
        turn = [{"role": "assistant", "content": "Tom."}, {"role": "user", "content": "Why?"}]
        second = _usage(client, "/chat/completions", messages=messages + turn, stream=stream)
    assert first["prompt_tokens_details"] == {"cached_tokens": 0}
    assert first["completion_tokens_details"] == {"reasoning_tokens": 0}
    page = LIMITS.page_tokens
    assert second["prompt_tokens_details"] == {
        "cached_tokens": first["prompt_tokens"] // page * page
    }


def test_without_the_cache_nothing_is_found() -> None:
    with _served(EngineCore(FakeRuntime(), EngineOptions(prefix_cache=False))) as client:
        found = [_usage(client)["prompt_tokens_details"] for _ in range(2)]
    assert found == [{"cached_tokens": 0}] * 2


class _Seen(Exception):
    """Stops a start where the option has arrived."""

    def __init__(self, given: Any) -> None:
        super().__init__(str(given))
        self.given = given


@pytest.mark.parametrize(
    "asked",
    [
        EngineOptions(),
        EngineOptions(prefix_cache=False),
        EngineOptions(max_drafts=2, max_running=3, max_stall=1.5),
    ],
)
def test_options_reach_the_engine_process(
    asked: EngineOptions, small_artifact: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(command: Any, *_: object, **__: object) -> None:
        raise _Seen(command(Link("ipc://here", Path("meeting"), 1)))

    def go_on(_: int) -> None:
        """The parent is no process."""

    def run_engine(
        _: object, __: str, options: EngineOptions, ___: object, tokenizers: Sequence[Path]
    ) -> None:
        assert list(tokenizers) == [small_artifact.artifact]
        raise _Seen(options)

    monkeypatch.setattr(serving, "serve_engine", started)
    with pytest.raises(_Seen) as seen:
        serving.serve(small_artifact.artifact, engine=asked)
    command: Sequence[str] = seen.value.given
    program = own_program("lostwax.server.engine")
    assert [*command[: len(program)]] == program
    monkeypatch.setattr(process, "run_engine", run_engine)
    monkeypatch.setattr(process, "end_with_parent", go_on)
    with pytest.raises(_Seen) as seen:
        process.main(command[len(program) :])
    assert seen.value.given == asked


@pytest.mark.parametrize("option", [[], ["--disable-radix-cache"]])
def test_serve_and_eval_take_the_option(
    option: list[str],
    small_artifact: Compiled,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[bool] = []

    def note_serve(*_: object, engine: EngineOptions, **__: object) -> None:
        seen.append(engine.prefix_cache)
        raise KeyboardInterrupt

    def note_eval(*_: object, prefix_cache: bool, **__: object) -> None:
        seen.append(prefix_cache)
        raise KeyboardInterrupt

    monkeypatch.setattr("lostwax.server.gateway.serve.serve", note_serve)
    monkeypatch.setattr("lostwax.evals.connect.in_process", note_eval)
    where = [small_artifact.artifact, "--checkpoint", small_artifact.checkpoint]
    for line in (["serve", *where], ["eval", "tiny", "--artifact", *where]):
        lostwax(capsys, *line, *option)
    assert seen == [not option] * 2


def test_eval_of_a_server_refuses_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--url", "http://127.0.0.1:1", "--disable-radix-cache")
    status, _, err = lostwax(capsys, "eval", "tiny", *where)
    assert status != 0
    assert "--disable-radix-cache would change nothing of the server" in err
