"""Two servers that stream a token to every client in each step: the gateway, and nothing but one.

    python benchmarks/stream_servers.py gateway|bare STEP_SECONDS [plain|metrics]

prints its port and serves until its input ends. The gateway's engine is a process that computes
nothing; `bare` is FastAPI's StreamingResponse under uvicorn, whose events are bytes of the same
length that are made once. Asked by `streams.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from lostwax.backends.runtime.say import say
from lostwax.ir.contract.model import CHAT_V32
from lostwax.server.engine.messages import EngineInfo, Event, Output, Submit, TokenScore
from lostwax.server.engine.parent import end_with_parent
from lostwax.server.engine.wire import EngineWire
from lostwax.server.gateway.app import create_app
from lostwax.server.gateway.serve import listen, serve_engine
from lostwax.server.gateway.settings import Settings
from lostwax.server.gateway.tokenizer_file import load_codec

TOKENIZER = Path(__file__).parents[1] / "models/tiny/weights"
MAX_CONTEXT = 1_000_000
FIRST_ID, IDS = 300, 200
"""Tokens of the answers: ordinary pieces of text, one after another."""


def engine(address: str, parent: int, step_s: float) -> None:
    """Give each request a token a step, all of a step in one frame, as the real engine does."""
    end_with_parent(parent)
    tokens = [[TokenScore(FIRST_ID + i, -1.0)] for i in range(IDS)]
    left: dict[str, int] = {}
    with EngineWire(address) as wire:
        wire.send(
            [
                EngineInfo(
                    model="nothing",
                    vocab_size=4096,
                    max_context=MAX_CONTEXT,
                    max_reqs=4096,
                    max_top_logprobs=20,
                    eos_token_ids=(),
                    chat_encoding=CHAT_V32,
                )
            ]
        )
        due = time.monotonic()
        while True:
            for command in wire.receive(wait=not left):
                if isinstance(command, Submit):
                    left[command.request] = command.max_tokens
                else:
                    left.pop(command.request, None)
            events: list[Event] = []
            for name, count in list(left.items()):
                finish = "length" if count == 1 else None
                events.append(Output(request=name, tokens=tokens[count % IDS], finish=finish))
                left[name] = count - 1
                if finish:
                    del left[name]
            if events:
                wire.send(events)
            due = max(due + step_s, time.monotonic())
            time.sleep(max(due - time.monotonic(), 0))


def gateway(step_s: float, *, metrics: bool) -> None:
    """`lostwax serve`'s gateway over that engine."""
    settings = Settings(metrics=metrics, log_requests=metrics, max_admitted_tokens=10**9)
    command = [sys.executable, __file__, "engine", str(step_s)]
    serve_engine(
        lambda link: [*command, "--address", link.address, "--parent", str(link.parent)],
        lambda client, draining: create_app(
            client, load_codec(TOKENIZER), settings, draining=draining
        ),
        host="127.0.0.1",
        port=0,
    )


class _Pace:
    """Wakes every stream once a step."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self.boxes: set[asyncio.Queue[bytes]] = set()

    async def run(self, event: bytes) -> None:
        """Put the event into every box, for ever."""
        due = time.monotonic()
        while True:
            for box in self.boxes:
                box.put_nowait(event)
            due = max(due + self._step_s, time.monotonic())
            await asyncio.sleep(max(due - time.monotonic(), 0))

    async def stream(self, count: int) -> AsyncGenerator[bytes]:
        """So many events, one a step."""
        box: asyncio.Queue[bytes] = asyncio.Queue()
        self.boxes.add(box)
        try:
            for _ in range(count):
                yield await box.get()
        finally:
            self.boxes.discard(box)


def bare(step_s: float, event_bytes: int) -> None:
    """A stream with nothing around it."""
    app, pace = FastAPI(), _Pace(step_s)
    event = b"data: ".ljust(event_bytes - 2, b".") + b"\n\n"

    @app.post("/{path:path}")
    async def stream(path: str, http: Request) -> StreamingResponse:  # pyright: ignore[reportUnusedFunction]
        wanted: dict[str, Any] = msgspec.json.decode(await http.body())
        events = pace.stream(wanted["max_tokens"])
        return StreamingResponse(events, media_type="text/event-stream")

    async def serve() -> None:
        config = uvicorn.Config(app, http="h11", loop="asyncio", ws="none", log_level="error")
        pacing = asyncio.create_task(pace.run(event))
        with listen("127.0.0.1", 0) as listener:
            say(f"listening on http://127.0.0.1:{listener.getsockname()[1]}; is ready")
            await uvicorn.Server(config).serve([listener])
        pacing.cancel()

    asyncio.run(serve())


def main() -> None:
    """Serve what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["gateway", "bare", "engine"])
    parser.add_argument("step_s", type=float)
    parser.add_argument("--metrics", action="store_true")
    parser.add_argument("--event-bytes", type=int, default=200)
    parser.add_argument("--address", default="")
    parser.add_argument("--parent", type=int, default=0)
    options = parser.parse_args()
    if options.kind == "engine":
        engine(options.address, options.parent, options.step_s)
    elif options.kind == "gateway":
        gateway(options.step_s, metrics=options.metrics)
    else:
        bare(options.step_s, options.event_bytes)


if __name__ == "__main__":
    main()
