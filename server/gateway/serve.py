"""Starts both halves of the server and blocks until they end. Knows processes and ports only."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.server.gateway.supervised import SupervisedEngine

# The web's libraries are imported while the engine process already starts.
if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from lostwax.server.gateway.engine_client import EngineClient

MAX_HEADER_BYTES = 65536
"""uvicorn's default parser takes headers of any size (CVE-2025-48956); h11 has a bound."""
BACKLOG = 1024
DRAIN_S = 10


class ServeError(RuntimeError):
    """The server cannot start or go on; the message says what to do."""


def serve(
    artifact: Path,
    *,
    checkpoint: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    drafts: int | None = None,
    num_pages: int | None = None,
    threads: int | None = None,
    model: str | None = None,
    insecure: bool = False,
    certificates: Path | None = None,
    allow_compiled: bool = False,
) -> None:
    """Serve an artifact over HTTP until interrupted.

    `model` is what clients call it, if not by the checkpoint's name. The tokenizer is looked for in
    the artifact, then in the checkpoint. `insecure` allows a host that other machines can reach:
    there is no authentication yet. `certificates` is a folder for what the golden probes showed,
    `allow_compiled` serves lowerings that never ran here.
    """
    given = {"--checkpoint": checkpoint, "--num-pages": num_pages, "--threads": threads}
    given |= {"--certificates": certificates, "--drafts": drafts}
    options = [part for k, v in given.items() if v is not None for part in (k, str(v))]
    options += ["--allow-compiled"] if allow_compiled else []
    ranks = ArtifactReader(artifact).manifest.world_size
    engine = ["lostwax.server.engine"]
    if ranks > 1:
        engine = ["lostwax.server.engine.launch", str(ranks)]
    module = [sys.executable, "-m", *engine, str(artifact)]

    def application(client: EngineClient) -> FastAPI:
        from lostwax.server.gateway.app import Settings, create_app
        from lostwax.server.gateway.tokenizer import load_codec

        return create_app(client, load_codec(artifact, checkpoint), Settings(model=model))

    serve_engine(
        lambda address: [*module, "--address", address, *options],
        application,
        host=host,
        port=port,
        model=model,
        insecure=insecure,
    )


def serve_engine(
    command: Callable[[str], Sequence[str]],
    application: Callable[[EngineClient], FastAPI],
    *,
    host: str,
    port: int,
    model: str | None = None,
    insecure: bool = False,
    announce: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> None:
    """Serve the engine that `command` starts, announced as `model`."""
    if not insecure and not _is_loopback(host):
        raise ServeError(
            f"host {host!r} can be reached by others and there is no authentication;"
            f" use 127.0.0.1, or allow it with --insecure"
        )
    engine = SupervisedEngine(command, announce=announce, model=model)
    with listen(host, port) as listener:
        announce(f"listening on http://{host}:{listener.getsockname()[1]}; starting the engine")
        try:
            asyncio.run(_run(application, listener, engine))
        except KeyboardInterrupt:
            announce("stopped")


def http_config(app: FastAPI) -> uvicorn.Config:
    """How uvicorn serves the application: with a parser that bounds headers."""
    import uvicorn

    return uvicorn.Config(
        app,
        http="h11",
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        ws="none",
        loop="asyncio",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=DRAIN_S,
    )


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; clients may connect at once and wait for their answer."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named, or asyncio leaves Nagle's algorithm on: 40 ms more an answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ServeError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port"
        ) from error
    return listener


async def _run(
    application: Callable[[EngineClient], FastAPI],
    listener: socket.socket,
    engine: SupervisedEngine,
) -> None:
    await engine.start()
    try:
        server = await asyncio.to_thread(_http_server, application, engine)
        serving = asyncio.create_task(server.serve([listener]))
        failing = asyncio.create_task(engine.wait_failed())
        await asyncio.wait({serving, failing}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    finally:
        await engine.stop()
    if failing.done():
        raise ServeError(f"the engine did not start: {failing.result()}")
    failing.cancel()


def _http_server(
    application: Callable[[EngineClient], FastAPI], engine: SupervisedEngine
) -> uvicorn.Server:
    """Made in a thread, so that the engine process starts meanwhile."""
    import uvicorn

    return uvicorn.Server(http_config(application(engine)))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
