"""A gateway as a process of its own, over an engine that says little and has a large context.

`python large_gateway.py MAX_CONTEXT [TOKENIZER_FOLDER]` serves on a free port, which it prints.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from fastapi import FastAPI
from scripted_runtime import CHATTING, CODEC, LIMITS, ScriptedRuntime

from lostwax.server.engine.parent import end_with_parent
from lostwax.server.engine.process import run_engine
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.draining import Draining
from lostwax.server.gateway.engine_client import EngineClient
from lostwax.server.gateway.serve import serve_engine
from lostwax.server.gateway.tokenizer_file import load_codec


@dataclass(frozen=True)
class GatewayProcess:
    """Where it is served, and its process."""

    port: int
    pid: int


@contextmanager
def large_gateway(max_context: int, tokenizer: Path | None = None) -> Generator[GatewayProcess]:
    """The gateway while it is ready; `tokenizer` is a folder with another one than bytes."""
    command = [sys.executable, __file__, str(max_context), *([str(tokenizer)] if tokenizer else [])]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert "listening on http://127.0.0.1:" in line, line
            port = int(line.partition("127.0.0.1:")[2].partition(";")[0])
            assert "is ready" in (ready := process.stderr.readline()), ready
            yield GatewayProcess(port, process.pid)
        finally:
            process.kill()


def _engine(address: str, parent: int, max_context: int) -> None:
    end_with_parent(parent)
    limits = replace(
        LIMITS,
        max_context=max_context,
        max_tokens=8192,
        page_tokens=64,
        num_pages=max_context // 64 * 4 + 1,
        vocab_size=200_000,
    )
    facts = msgspec.structs.replace(CHATTING, vocab_size=200_000, max_context=max_context)
    run_engine(lambda _: ScriptedRuntime(limits=limits, facts=facts), address)


def _serve(max_context: int, tokenizer: Path | None) -> None:
    def application(engine: EngineClient, draining: Draining) -> FastAPI:
        codec = CODEC if tokenizer is None else load_codec(tokenizer)
        return create_app(engine, codec, Settings(), draining=draining)

    command = [sys.executable, __file__, "--engine"]
    serve_engine(
        lambda link: [*command, link.address, str(link.parent), str(max_context)],
        application,
        host="127.0.0.1",
        port=0,
    )


if __name__ == "__main__":
    if sys.argv[1] == "--engine":
        _engine(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        _serve(int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
