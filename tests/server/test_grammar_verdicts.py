"""A streamed answer that follows a grammar has its status when that is compiled, not when its turn
has come; what is refused is a status of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_runtime import FakeLimits
from grammar_engine import CHOICE, ConstrainedEngine, constrained
from grammar_vocabulary import raise_it
from http_server import running
from scripted_runtime import CODEC, VOCAB, ScriptedRuntime

from lostwax.ir.contract.masks import num_masks
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Output
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.scheduled_step import ScheduledStep
from lostwax.server.gateway import stream
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.grammar.grammar import Grammar
from lostwax.server.grammar.grammars import Grammars


def _told(made: ConstrainedEngine, name: str) -> list[bool]:
    """Of each event of a request whether it says that its grammar is followed."""
    return [isinstance(e, Output) and e.is_followed for e in made.events if e.request == name]


def test_an_engine_says_once_and_first_that_a_grammar_is_followed(tmp_path: Path) -> None:
    with constrained(tmp_path, max_reqs=1) as made:
        made.add("first", [1], grammar=CHOICE)
        made.add("free", [2], 3)
        made.add("both", [3], grammar=CHOICE, num_choices=2)
        made.add("wrong", [4], grammar=Grammar("regex", "(a"))
        made.run()
        for name in ("first", "both-0", "both-1"):
            told = _told(made, name)
            assert told == [True] + [False] * (len(told) - 1)
            assert len(told) > 1
        assert not any(_told(made, "free") + _told(made, "wrong"))


class _Turn:
    """No step is planned until it has `come`."""

    def __init__(self, core: EngineCore) -> None:
        self.come = threading.Event()
        self._schedule = core.scheduler.schedule

    def schedule(self) -> ScheduledStep | None:
        return self._schedule() if self.come.is_set() else None


@pytest.fixture
def turn_and_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[threading.Event, str]]:
    """A server that follows grammars, when the turn of its requests comes, and where it is."""
    monkeypatch.setattr(stream, "QUIET_S", 0.05)
    (tmp_path / "tokenizer.json").write_bytes(CODEC.serialised())
    roomy = FakeLimits(max_context=4096, page_tokens=16, num_pages=1025, vocab_size=VOCAB)
    runtime = ScriptedRuntime(limits=roomy, script=CODEC.encode("ab"))
    limits, ends = runtime.limits, runtime.facts.eos_token_ids
    most = num_masks(limits.max_reqs, limits.max_drafts)
    grammars = Grammars([tmp_path], limits.vocab_size, ends[0], most, log=raise_it)
    core = EngineCore(runtime, EngineOptions(), grammars=grammars)
    engine, turn = InProcessEngine(core), _Turn(core)
    turn.come.set()
    try:
        with running(create_app(engine, CODEC, Settings(model="m"))) as url:
            while httpx.get(f"{url}/ready").status_code != 200:
                time.sleep(0.01)  # it warms up
            monkeypatch.setattr(core.scheduler, "schedule", turn.schedule)
            turn.come.clear()
            yield turn.come, url
            turn.come.set()
    finally:
        grammars.stop()


TOOL = {"name": "f", "parameters": {"type": "object"}}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "?"}]}
SCHEMA = {"name": "s", "schema": {"type": "object"}}
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "a format": ("/v1/completions", {"prompt": "?", "regex": "ab"}),
    "a chat's format": (
        "/v1/chat/completions",
        CHAT | {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    ),
    "forced calls": (
        "/v1/chat/completions",
        CHAT | {"tools": [{"type": "function", "function": TOOL}], "tool_choice": "required"},
    ),
    "strict tools": (
        "/v1/chat/completions",
        CHAT | {"tools": [{"type": "function", "function": TOOL | {"strict": True}}]},
    ),
    "a response's calls": (
        "/v1/responses",
        {"input": "?", "tools": [{"type": "function", **TOOL}], "tool_choice": "required"},
    ),
    "a message's calls": (
        "/v1/messages",
        CHAT
        | {
            "max_tokens": 9,
            "tools": [{"name": "f", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "any"},
        },
    ),
    "ollama's format": ("/api/chat", CHAT | {"format": "json"}),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_stream_has_its_status_and_signs_of_life_before_its_turn(
    turn_and_url: tuple[threading.Event, str], name: str
) -> None:
    turn, url = turn_and_url
    path, body = ASKED[name]
    asked = {"model": "m", "stream": True, **body}
    with httpx.stream("POST", f"{url}{path}", json=asked, timeout=10) as answer:
        assert answer.status_code == 200, answer.read()
        parts = answer.iter_bytes()
        assert next(parts).startswith((b":\n\n", b"{"))
        turn.set()
        assert b"".join(parts).strip(b":\n")


def test_a_grammar_that_is_refused_is_a_status_of_its_own(
    turn_and_url: tuple[threading.Event, str],
) -> None:
    _, url = turn_and_url
    asked = {"model": "m", "stream": True, "prompt": "?", "regex": "(a"}
    answer = httpx.post(f"{url}/v1/completions", json=asked, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_grammar"
