"""Starts both halves of the server and blocks until they end. Knows processes and ports only."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.say import say
from lostwax.ir.contract.own_program import own_program
from lostwax.server.engine.log_lines import LogLines
from lostwax.server.engine.options import SERVED, EngineOptions
from lostwax.server.gateway.engine_client import EngineClient, EngineLost
from lostwax.server.gateway.origins import require_origins
from lostwax.server.gateway.ready_pipe import Ready, ReadyPipe
from lostwax.server.gateway.room import BACKLOG, max_connections
from lostwax.server.gateway.settings import WATCHDOG_S, Build, Settings
from lostwax.server.gateway.start_clock import ESTIMATE_S, estimate
from lostwax.server.gateway.stop_signals import stop_signals
from lostwax.server.gateway.supervised import Link, SupervisedEngine
from lostwax.server.gateway.tls import Tls

# The web's libraries are imported while the engine process already starts.
if TYPE_CHECKING:
    from fastapi import FastAPI

    from lostwax.server.gateway.draining import Draining
    from lostwax.server.gateway.http_server import HttpServer

DRAIN_S = 10.0
UNFINISHED = "the server is shutting down, and the time for requests under way is over"
LAST_ERRORS_S = 2.0
"""What errors get to reach their clients when the drain is over."""

Announce = Callable[[str], None]
Application = Callable[[EngineClient, "Draining"], "FastAPI"]


class ServeError(RuntimeError):
    """The server cannot start or go on; the message says what to do."""


def serve(
    artifact: Path,
    settings: Settings | None = None,
    *,
    checkpoint: Path | None = None,
    port: int = 8000,
    engine: EngineOptions = SERVED,
    num_pages: int | None = None,
    num_host_pages: int = 0,
    threads: int | None = None,
    insecure: bool = False,
    tls: Tls | None = None,
    certificates: Path | None = None,
    allow_compiled: bool = False,
    drain_s: float = DRAIN_S,
    watchdog_s: float = WATCHDOG_S,
    ready_fd: int | None = None,
) -> None:
    """Serve an artifact over HTTP until interrupted; requests then have `drain_s` seconds to end.
    An engine whose step takes longer than `watchdog_s` seconds is started again.

    The tokenizer is looked for in the artifact, then in the checkpoint. `insecure` allows a host
    that other machines can reach where no API key is asked for. `num_host_pages` pages of host
    memory are a tier of the prefix cache. `certificates` is a folder for
    what the golden probes showed, `allow_compiled` serves lowerings that never ran here. `ready_fd`
    is told the port when the model answers.
    """
    manifest = ArtifactReader(artifact).manifest
    build = Build(manifest.schema, manifest.digest, manifest.target.name, artifact, certificates)
    chosen = replace(settings or Settings(), build=build)
    require_origins(chosen.allowed_origins)
    pipe = None if ready_fd is None else ReadyPipe(ready_fd)
    given = {"--checkpoint": checkpoint, "--num-pages": num_pages, "--threads": threads}
    given |= {"--certificates": certificates, "--host-pages": num_host_pages or None}
    options = [part for k, v in given.items() if v is not None for part in (k, str(v))]
    options += ["--allow-compiled"] if allow_compiled else []
    asked = replace(engine, reports=chosen.metrics)
    options += [*asked.arguments(), "--log-format", chosen.log_format]

    def command(link: Link) -> list[str]:
        program = [*own_program("lostwax.server.engine"), str(artifact)]
        if manifest.world_size > 1:
            ranks, meeting = str(manifest.world_size), str(link.meeting)
            program = [*own_program("lostwax.server.engine.launch"), ranks, str(artifact)]
            program += ["--meeting", meeting]
        told = ["--address", link.address, "--parent", str(link.parent)]
        return [*program, *told, *options]

    def application(client: EngineClient, draining: Draining) -> FastAPI:
        from lostwax.server.gateway.app import create_app
        from lostwax.server.gateway.tokenizer_file import load_codec

        return create_app(client, load_codec(artifact, checkpoint), chosen, draining=draining)

    serve_engine(
        command,
        application,
        host=chosen.host,
        port=port,
        model=chosen.model,
        insecure=insecure or bool(chosen.key_digests),
        tls=tls,
        drain_s=drain_s,
        watchdog_s=watchdog_s,
        expected_s=estimate(manifest.weight_bytes),
        announce=LogLines(chosen.log_format).say,
        ready=lambda port: pipe.tell(Ready(port)) if pipe else None,
    )


def serve_engine(
    command: Callable[[Link], Sequence[str]],
    application: Application,
    *,
    host: str,
    port: int,
    model: str | None = None,
    insecure: bool = False,
    tls: Tls | None = None,
    drain_s: float = DRAIN_S,
    watchdog_s: float = WATCHDOG_S,
    expected_s: Mapping[str, float] = ESTIMATE_S,
    announce: Announce = say,
    ready: Callable[[int], None] = lambda port: None,
) -> None:
    """Serve the engine that `command` starts, announced as `model`, until a signal.

    `expected_s` is what phases of its first start may take, in seconds by name. `ready` is told the
    port each time that the engine is ready.
    """
    _require_loopback(host, insecure=insecure)
    with listen(host, port) as listener:
        bound: int = listener.getsockname()[1]
        engine = SupervisedEngine(
            command,
            announce=announce,
            watchdog_s=watchdog_s,
            model=model,
            expected_s=expected_s,
            ready=lambda: ready(bound),
        )
        place = f"[{host}]" if ":" in host else host
        scheme = "http" if tls is None else "https"
        greeting = f"listening on {scheme}://{place}:{bound}; starting the engine"
        server = partial(_http_server, application, engine, tls)
        asyncio.run(_run(server, listener, engine, drain_s, announce, greeting))


def require_may_listen(host: str, port: int, *, insecure: bool = False) -> None:
    """Raises ServeError where `serve` could not listen now: before seconds go into a compile."""
    _require_loopback(host, insecure=insecure)
    listen(host, port).close()


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
    make_server: Callable[[int], tuple[HttpServer, Draining]],
    listener: socket.socket,
    engine: SupervisedEngine,
    drain_s: float,
    announce: Announce,
    greeting: str,
) -> None:
    """Until a signal, or until the engine turns out not to start."""
    most = max_connections()
    with stop_signals(engine.abandon) as stop:
        announce(greeting)
        await engine.start()
        try:
            # In a thread, so that the engine process starts meanwhile.
            server, draining = await asyncio.to_thread(make_server, most)
            gc.freeze()  # all that was imported stays: each look for garbage would walk over it
            serving = asyncio.create_task(server.serve([listener]))
            failing = asyncio.create_task(engine.wait_failed())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({serving, failing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not failing.done():
                await _drain(draining, engine, drain_s, announce)
            server.should_exit = True
            await serving
        finally:
            await engine.stop()
    if failing.done():
        raise ServeError(f"the engine did not start: {failing.result()}")
    failing.cancel()
    announce("stopped")


async def _drain(
    draining: Draining, engine: SupervisedEngine, drain_s: float, announce: Announce
) -> None:
    """Refuse new requests, and end those under way with an error when their time is over."""
    draining.begin(drain_s)
    if draining.num_running:
        announce(
            f"draining: {_requests(draining)}, up to {drain_s:g} s; Ctrl-C again stops at once"
        )
    if not await draining.idle_within(drain_s):
        announce(f"{_requests(draining)} not finished after {drain_s:g} s: ended with an error")
        await engine.stop(EngineLost(UNFINISHED, "shutting_down"))
        await draining.idle_within(LAST_ERRORS_S)


def _requests(draining: Draining) -> str:
    return f"{draining.num_running} request{'' if draining.num_running == 1 else 's'}"


def _http_server(
    application: Application, engine: SupervisedEngine, tls: Tls | None, max_connections: int
) -> tuple[HttpServer, Draining]:
    from lostwax.server.gateway.draining import Draining
    from lostwax.server.gateway.http_server import HttpServer

    draining = Draining()
    return HttpServer(application(engine, draining), max_connections, tls=tls), draining


def _require_loopback(host: str, *, insecure: bool) -> None:
    if not insecure and not _is_loopback(host):
        raise ServeError(
            f"host {host!r} can be reached by others and no API key is asked for; give"
            f" --api-key-file FILE, use 127.0.0.1, or allow it with --insecure"
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
