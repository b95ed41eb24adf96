"""A chat server of OpenAI's interface whose answers are known, streamed word by word.

The last message says what to do: `say X`, `think X`, `count` (for ever, a word every 10 ms) or
`fail`, `forge`, `break`, `babble`. It knows no lostwax.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse


@dataclass
class ChatStub:
    """What it was asked; `left` is set when a client closed its stream early."""

    key: str | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    left: threading.Event = field(default_factory=threading.Event)

    def app(self) -> FastAPI:
        """The application."""
        app = FastAPI()

        @app.get("/v1/models")
        def models(http: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
            if self.key and http.headers.get("authorization") != f"Bearer {self.key}":
                return _error(401, "wrong key")
            return JSONResponse({"data": [{"id": "stub"}, {"id": "other"}]})

        @app.post("/v1/chat/completions")
        async def chat(http: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
            body = await http.json()
            self.bodies.append(body)
            asked = str(body["messages"][-1]["content"])
            if asked == "fail":
                return _error(400, "n: only 1 is supported")
            if asked == "forge":
                return _error(400, "no\n\x1b[2Jlostwax: yes")
            if asked == "babble":
                return PlainTextResponse("data: <html>\n\n")
            return StreamingResponse(self._events(asked), media_type="text/event-stream")

        return app

    async def _events(self, asked: str) -> AsyncGenerator[str]:
        try:
            yield _chunk({"role": "assistant"})
            what, _, text = asked.partition(" ")
            if what == "count":
                for n in range(10_000):
                    yield _chunk({"content": f"word{n} "})
                    await asyncio.sleep(0.01)
            if what == "think":
                for part in ("Let me ", "see."):
                    yield _chunk({"reasoning_content": part})
            for word in text.split(" "):
                yield _chunk({"content": f"{word} "})
            if what == "break":
                yield 'event: error\ndata: {"error": {"message": "the engine ended"}}\n\n'
                return
            yield _chunk({}, "length" if what == "cut" else "stop")
            yield "data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.left.set()
            raise


def _chunk(delta: dict[str, str], finish: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "x"}}, status)
