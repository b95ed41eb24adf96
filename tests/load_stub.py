"""A streaming server of OpenAI's interface that a load is put on, with known tokens and faults.

It is as strict as a real one (a request without a stream, without usage or with a wrong id gets
400), counts what it was asked, and fails the requests whose numbers are told. It knows no lostwax.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse


@dataclass
class LoadStub:
    """Answers of `max_tokens` tokens, `per_chunk` of them a chunk: the first after `first_s`, the
    others `gap_s` apart. `faults` says how the request of a number (from 0) fails."""

    vocab_size: int = 1000
    first_s: float = 0.0
    gap_s: float = 0.0
    per_chunk: int = 1
    faults: dict[int, str] = field(default_factory=dict[int, str])
    bodies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    in_flight: int = 0
    max_in_flight: int = 0

    def app(self) -> FastAPI:
        """The application."""
        app = FastAPI()

        @app.get("/v1/models")
        def models() -> Response:  # pyright: ignore[reportUnusedFunction]
            return JSONResponse({"data": [{"id": "stub"}]})

        @app.post("/v1/completions")
        async def completions(http: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
            body = await http.json()
            return self._answered(body, body["prompt"], is_chat=False)

        @app.post("/v1/chat/completions")
        async def chat(http: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
            body = await http.json()
            return self._answered(body, body["messages"][-1]["content"], is_chat=True)

        return app

    def _answered(
        self, body: dict[str, Any], prompt: str | list[int], *, is_chat: bool
    ) -> Response:
        fault = self.faults.get(len(self.bodies), "")
        self.bodies.append(body)
        if not (body["stream"] and body["stream_options"]["include_usage"] and prompt):
            return _error(400, "a stream with usage is expected")
        if not isinstance(prompt, str) and not all(0 <= i < self.vocab_size for i in prompt):
            return _error(400, "an id is out of the vocabulary")
        if fault == "busy":
            return _error(429, "the queue is full")
        if fault == "babble":
            return PlainTextResponse("data: <html>\n\n")
        tokens = len(prompt.split()) if isinstance(prompt, str) else len(prompt)
        events = self._events(body["max_tokens"], tokens, fault, is_chat)
        return StreamingResponse(events, media_type="text/event-stream")

    async def _events(
        self, count: int, prompt_tokens: int, fault: str, is_chat: bool
    ) -> AsyncGenerator[str]:
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            yield ": a comment\r\n\r\n"
            if is_chat:  # comes before any token: no first token may be seen in it
                yield _event(_chat({"role": "assistant", "content": ""}))
            await asyncio.sleep(self.first_s)
            if fault != "mute":
                async for piece in self._pieces(count, fault):
                    yield _event(_chat({"content": piece}) if is_chat else _text(piece))
                yield _event(_chat({}, "length") if is_chat else _text("", "length"))
            if fault != "no usage":
                yield _event({"choices": [], "usage": _usage(prompt_tokens, count, fault)})
            yield "data: [DONE]\n\n"
        except _Ended as ended:
            yield str(ended)
        finally:
            self.in_flight -= 1

    async def _pieces(self, count: int, fault: str) -> AsyncGenerator[str]:
        """Text, a chunk at a time; a fault comes behind the first."""
        yield "w "
        if fault == "stop":
            raise ConnectionAbortedError("planted: the server stops in mid-stream")
        if fault == "end":
            raise _Ended
        if fault == "error":
            raise _Ended('data: {"error": {"message": "the engine ended"}}\n\n')
        if fault == "hang":
            await asyncio.sleep(3600)
        for _ in range(self.per_chunk, count, self.per_chunk):
            await asyncio.sleep(self.gap_s)
            yield "w "


class _Ended(Exception):
    """A stream ends early; the message is the last that it brings."""


def _usage(prompt_tokens: int, count: int, fault: str) -> dict[str, Any]:
    said: dict[str, Any] = {"too many": count + 1, "none": 0, "words": "many"}
    return {
        "prompt_tokens": -1 if fault == "negative" else prompt_tokens,
        "completion_tokens": said.get(fault, count),
    }


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


def _text(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish}], "usage": None}


def _chat(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message}}, status)
