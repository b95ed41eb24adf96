"""What the gateway pays for a streamed token, and what an operator's eyes add to it.

    python benchmarks/stream_cost.py [--tokens 20000] [--rounds 7]

An engine that costs nothing answers one stream; nobody reads it. Printed is the best round of each
setting, the settings taking turns, so that other work on the cores hits all alike.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message

from lostwax.backends.runtime.say import result
from lostwax.server.engine.messages import EngineInfo, Output, Stats, Submit, TokenScore
from lostwax.server.gateway.app import create_app
from lostwax.server.gateway.engine_client import STOPPED, EngineLost, EngineState
from lostwax.server.gateway.settings import Settings
from lostwax.server.gateway.tokenizer import IdCodec

SETTINGS = {
    "nothing": Settings(),
    "--enable-metrics": Settings(metrics=True),
    "--log-requests": Settings(log_requests=True),
    "--enable-metrics --collect-tokens-histogram": Settings(metrics=True, token_histograms=True),
}


class Instant:
    """An engine whose tokens are all there: implements EngineClient."""

    state: EngineState = "ready"
    progress: None = None
    stats: Stats | None = None
    num_restarts = 0

    def __init__(self, num_tokens: int) -> None:
        self.info = EngineInfo(
            model="instant",
            vocab_size=1000,
            max_context=num_tokens + 8,
            max_reqs=1,
            max_top_logprobs=20,
            eos_token_ids=(),
        )

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self, reason: EngineLost = STOPPED) -> None:
        """Nothing to end."""

    async def stream(self, requests: Sequence[Submit]) -> AsyncGenerator[Output, None]:
        """One token an output."""
        (submit,) = requests
        token = [TokenScore(7, -1.0)]
        for number in range(submit.max_tokens):
            finish = "length" if number == submit.max_tokens - 1 else None
            yield Output(request=submit.request, tokens=token, finish=finish)

    def cancel(self, request: str) -> None:
        """It ends by itself."""


async def stream_once(app: ASGIApp, num_tokens: int) -> float:
    """Seconds of one streamed answer of `num_tokens` tokens."""
    body = {"prompt": [1, 2], "max_tokens": num_tokens, "stream": True}
    waiting: list[Message] = [{"type": "http.request", "body": msgspec.json.encode(body)}]

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()  # the client stays
        return waiting.pop()

    async def send(message: Message) -> None:
        pass

    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/v1/completions",
        "raw_path": b"/v1/completions",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "scheme": "http",
        "http_version": "1.1",
        "root_path": "",
        "state": {},
    }
    start = time.perf_counter()
    await app(scope, receive, send)
    return time.perf_counter() - start


async def main() -> None:
    """Print microseconds a token by setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    engine = Instant(options.tokens)
    apps = {name: create_app(engine, IdCodec(), each) for name, each in SETTINGS.items()}
    best = dict.fromkeys(apps, float("inf"))
    for _ in range(options.rounds):
        for name, app in apps.items():
            best[name] = min(best[name], await stream_once(app, options.tokens))
    for name, seconds in best.items():
        result(f"{name:<46} {seconds / options.tokens * 1e6:6.2f} us a streamed token")


if __name__ == "__main__":
    asyncio.run(main())
