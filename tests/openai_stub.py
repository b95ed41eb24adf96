"""A server of OpenAI's interface whose answers are known: it says what the prompt asks it to say.

`say 42` is answered by `42`; other words make it fail. It knows no lostwax.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

SAY = re.compile(r"say (.*)", re.DOTALL)


@dataclass
class Stub:
    """What it was asked, and how it misbehaves: the first `busy` requests get 429; that number
    `held` sets `holding` and waits for `released`."""

    models: tuple[str, ...] = ("stub",)
    key: str | None = None
    busy: int = 0
    held: int | None = None
    holding: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    bodies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def app(self) -> FastAPI:
        """The application."""
        app = FastAPI()

        @app.get("/v1/models")
        def models(http: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
            if self.key and http.headers.get("authorization") != f"Bearer {self.key}":
                return _error(401, "wrong key")
            return JSONResponse({"object": "list", "data": [{"id": name} for name in self.models]})

        @app.post("/v1/completions")
        async def completions(http: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
            body = await http.json()
            return await self._answer(body, body["prompt"], _text)

        @app.post("/v1/chat/completions")
        async def chat(http: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
            body = await http.json()
            return await self._answer(body, body["messages"][-1]["content"], _message)

        return app

    async def _answer(
        self, body: dict[str, Any], prompt: str, choice: Callable[[str], dict[str, Any]]
    ) -> Response:
        self.bodies.append(body)
        if len(self.bodies) <= self.busy:
            return _error(429, "the queue is full", {"Retry-After": "0.01"})
        if len(self.bodies) == self.held:
            self.holding.set()
            await asyncio.to_thread(self.released.wait)
        if "break" in prompt:
            return _error(500, "internal error")
        if "refuse" in prompt:
            return _error(400, "n: only 1 is supported")
        if "babble" in prompt:
            return PlainTextResponse("<html>it works!</html>")
        found = SAY.search(prompt)
        text = found[1].split("<")[0] if found else "nothing"
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        finish = "length" if "cut" in prompt else "stop"
        choices = [{"index": 0, "finish_reason": finish, **choice(text)}]
        return JSONResponse({"object": "x", "choices": choices, "usage": usage})


def _text(text: str) -> dict[str, Any]:
    return {"text": text}


def _message(text: str) -> dict[str, Any]:
    reasoning, mark, content = text.rpartition("//")
    message = {"role": "assistant", "content": content}
    return {"message": message | ({"reasoning_content": reasoning} if mark else {})}


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"message": message}}, status, headers)
