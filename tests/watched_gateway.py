"""A gateway as a process of its own, whose loop is watched, over an engine that tests know.

`python watched_gateway.py MAX_QUEUED NUM_PAGES STEP_SECONDS` serves on a free port and prints it.
`/gaps` tells when and for how long its loop was held at once since the last time.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import msgspec
from fake_runtime import FACTS, FakeLimits, FakeRuntime
from fastapi import FastAPI, Response
from loop_gaps import Gap, LoopGaps
from step_oracle import StepBatch

from lostwax.ir.contract.step import StepResult
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.parent import end_with_parent
from lostwax.server.engine.process import run_engine
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.draining import Draining
from lostwax.server.gateway.engine_client import EngineClient
from lostwax.server.gateway.serve import serve_engine
from lostwax.server.gateway.tokenizer import IdCodec

LIMITS = FakeLimits(max_tokens=512, max_reqs=256, max_context=512, page_tokens=16)


@dataclass(frozen=True, slots=True)
class WatchedGateway:
    """One that serves."""

    port: int
    pid: int

    @property
    def rss_bytes(self) -> dict[str, int]:
        """Memory of the gateway and of its engine."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        engine = next(pid for pid in children if "--engine" in _command(pid))
        return {"gateway": _rss_bytes(self.pid), "engine": _rss_bytes(engine)}

    def gaps(self) -> list[Gap]:
        """Each time for which its loop was held at once since this was asked last."""
        return msgspec.json.decode(self._get("/gaps"), type=list[Gap])

    def metrics(self) -> dict[str, float]:
        """Every line of `/metrics` by its name and labels."""
        lines = [line for line in self._get("/metrics").splitlines() if line[:1] != "#"]
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines)}

    def _get(self, path: str) -> str:
        answer = httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=20)
        return answer.raise_for_status().text


@contextmanager
def watched_gateway(
    max_queued: int = 512, num_pages: int = 4096, step_s: float = 0.0
) -> Generator[WatchedGateway]:
    """A gateway that is ready."""
    command = [sys.executable, __file__, str(max_queued), str(num_pages), str(step_s)]
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}  # it imports what tests do
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | paths
    ) as process:
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert "listening on http://127.0.0.1:" in line, line
            port = int(line.partition("127.0.0.1:")[2].partition(";")[0])
            assert "is ready" in (ready := process.stderr.readline()), ready
            gateway = WatchedGateway(port, process.pid)
            gateway.gaps()  # what the start took
            yield gateway
        finally:
            process.kill()


class _Forgetful(FakeRuntime):
    """Keeps no step that it has run."""

    def run(self, batch: StepBatch) -> StepResult:
        result = super().run(batch)
        self.batches.clear()
        return result


def _engine(address: str, parent: int, num_pages: int, step_s: float) -> None:
    end_with_parent(parent)
    runtime = _Forgetful(replace(LIMITS, num_pages=num_pages), step_s=step_s)
    runtime.facts = msgspec.structs.replace(FACTS, max_context=LIMITS.max_context)
    run_engine(lambda _: runtime, address, EngineOptions(reports=True))


def _application(client: EngineClient, draining: Draining, settings: Settings) -> FastAPI:
    app, gaps = create_app(client, IdCodec(), settings, draining=draining), LoopGaps()
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def watched(app: FastAPI) -> AsyncGenerator[None]:
        async with lifespan(app):
            watching = asyncio.create_task(gaps.watch())
            yield
            watching.cancel()

    app.router.lifespan_context = watched

    @app.get("/gaps")
    async def take() -> Response:  # pyright: ignore[reportUnusedFunction]
        seen, gaps.gaps = gaps.gaps, []
        return Response(msgspec.json.encode(seen))

    return app


def _serve(max_queued: int, num_pages: str, step_s: str) -> None:
    settings = Settings(max_admitted_reqs=max_queued, max_admitted_tokens=10**8, metrics=True)
    command = [sys.executable, __file__, "--engine"]
    serve_engine(
        lambda link: [*command, link.address, str(link.parent), num_pages, step_s],
        lambda client, draining: _application(client, draining, settings),
        host="127.0.0.1",
        port=0,
    )


def _command(pid: str) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def _rss_bytes(pid: int | str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError(f"process {pid} has ended")


if __name__ == "__main__":
    if sys.argv[1] == "--engine":
        _engine(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
    else:
        _serve(int(sys.argv[1]), sys.argv[2], sys.argv[3])
