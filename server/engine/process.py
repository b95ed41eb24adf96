"""The engine process: loads a runtime, warms it up, then steps for ever. Knows no HTTP.

Run as `python -m lostwax.server.engine`; the gateway starts it and reads its events.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Event
from lostwax.server.engine.runtime import Runtime
from lostwax.server.engine.wire import EngineWire


def run_engine(load: Callable[[], Runtime], address: str) -> None:
    """Serve the runtime that `load` gives to the gateway at `address`, until the process ends."""
    with EngineWire(address) as wire:
        core = EngineCore(load())
        core.warm_up()
        wire.send([core.info])
        while True:
            events: list[Event] = []
            for command in wire.receive(wait=not core.has_work):
                events += core.handle(command)
            events += core.step()
            if events:
                wire.send(events)


def main(argv: Sequence[str] | None = None) -> None:
    """Serve a compiled artifact."""
    parser = argparse.ArgumentParser(prog="lostwax.server.engine")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--address", required=True, help="ZeroMQ address that the gateway binds")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--num-pages", type=int)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args(argv)
    try:
        run_engine(lambda: _load(options), options.address)
    except Exception as error:
        if not type(error).__module__.startswith("lostwax."):
            raise
        raise SystemExit(1) from None  # the gateway has its sentence, nobody needs a traceback


def _load(options: argparse.Namespace) -> Runtime:
    # Imported here: only the engine process needs torch, and heartbeats already run meanwhile.
    from lostwax.backends.runtime.load import load

    return load(
        options.artifact,
        checkpoint=options.checkpoint,
        num_pages=options.num_pages,
        threads=options.threads,
    )
