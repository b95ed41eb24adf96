"""Routes that say what the artifact chose, as `lostwax explain` does. Knows no structure of it.

Another process reads it (`explained.py`), once, when somebody first asks; its answers are kept.
"""

from __future__ import annotations

import asyncio
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

from fastapi import FastAPI, Request, Response

from lostwax.backends.runtime.say import say_lines
from lostwax.ir.contract.own_program import own_program
from lostwax.server.gateway.api_schema import GUARDED, described
from lostwax.server.gateway.engine_client import EngineClient
from lostwax.server.gateway.errors import MAX_SHOWN_CHARS, ApiError
from lostwax.server.gateway.explain_answer import UNREADABLE, Explained, ExplainedChoices
from lostwax.server.gateway.readiness import require_engine

UNREAD = "the artifact's choices cannot be read; the server's log says why"
DEADLINE_S = 60.0
"""To read an artifact: one of 50 programs takes a quarter of a second."""
PAUSE_S = 10.0
"""Behind a failure, in which it is answered again: each attempt is a process and a line of the
log."""
MAX_TRACE_CHARS = 4000
"""Of what a process says that ends as it should not, the end."""
_MODULE = "lostwax.server.gateway.explained"


@dataclass(frozen=True, slots=True)
class Told:
    """What was read: the Explained, and the ExplainedChoices of programs by name, as JSON."""

    overview: bytes
    programs: dict[str, bytes]


class Explainer:
    """Has an artifact read when it is first asked. `certificates` is where its proofs are, None for
    beside it; `write` is told why it cannot be read, a sentence and maybe a trace."""

    def __init__(
        self,
        folder: Path,
        certificates: Path | None,
        write: Callable[[str], None] = say_lines,
        *,
        deadline_s: float = DEADLINE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = [*own_program(_MODULE), str(folder)]
        self._command += [str(certificates)] if certificates else []
        self._write = write
        self._deadline_s = deadline_s
        self._clock = clock
        self._reading: asyncio.Task[Told] | None = None
        self._anew_at = 0.0  # on the clock; of a reading that failed

    async def told(self) -> Told:
        """What was read; ApiError 500 where it cannot be, and whoever asks after a pause has it
        read anew. A client that leaves does not end the reading, for which others may wait."""
        if self._reading is None or (_has_failed(self._reading) and self._clock() >= self._anew_at):
            self._reading = asyncio.create_task(self._read())
            # Looked at: who asked may have left.
            self._reading.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(self._reading)

    async def stop(self) -> None:
        """End the reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> Told:
        try:
            # A session of its own: Ctrl-C reaches the gateway alone, which ends it.
            process = await asyncio.create_subprocess_exec(
                *self._command, stdout=PIPE, stderr=PIPE, start_new_session=True
            )
        except OSError as error:
            raise self._failure(f"no process can be started: {error}") from error
        try:
            async with asyncio.timeout(self._deadline_s):
                printed, said = await process.communicate()
        except TimeoutError as error:
            message = f"reading the artifact took longer than {self._deadline_s:g} s"
            raise self._failure(message, message) from error
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if process.returncode:
            raise self._failure(_why(process.returncode, said.decode(errors="replace").strip()))
        overview, *rest = printed.splitlines()
        names = [name.decode() for name in rest[::2]]
        return Told(overview, dict(zip(names, rest[1::2], strict=True)))

    def _failure(self, why: str, told: str = UNREAD) -> ApiError:
        """What clients are told, once the log has been told why."""
        self._anew_at = self._clock() + PAUSE_S
        self._write(f"/explain failed: {why}")
        return ApiError(500, told, code="internal_error")


def _has_failed(task: asyncio.Task[Told]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _why(status: int, said: str) -> str:
    if status == UNREADABLE:
        return said.rpartition("\n")[2]
    return f"its process ended with code {status}\n{indent(said[-MAX_TRACE_CHARS:], '  ')}".strip()


def add_explain(app: FastAPI, client: EngineClient, explainer: Explainer) -> None:
    """Add `/explain` and `/explain/{program}`.

    They wait for the engine: its first start makes the proofs.
    """

    @app.get("/explain", **described(Explained))
    async def explain() -> Response:  # pyright: ignore[reportUnusedFunction]
        require_engine(client)
        return _json((await explainer.told()).overview)

    name_in_path = {"name": "program", "in": "path", "required": True, "schema": {"type": "string"}}

    @app.get(
        "/explain/{program}",
        **described(ExplainedChoices, (404, *GUARDED), parameters=[name_in_path]),
    )
    async def choices(http: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        require_engine(client)
        name: str = http.path_params["program"]
        found = (await explainer.told()).programs.get(name)
        if found is None:
            message = (
                f"no choices of a program {name[:MAX_SHOWN_CHARS]!r} are shown; /explain lists"
                " those that are, and `lostwax explain ARTIFACT` has all"
            )
            raise ApiError(404, message, code="program_not_found", param="program")
        return _json(found)


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json")
