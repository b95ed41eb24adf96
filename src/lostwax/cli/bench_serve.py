"""`lostwax bench serve`: a server's latency and throughput under load. Knows no statistics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from lostwax.backends.runtime.say import MAX_NAME, result, result_json, say
from lostwax.cli.bench_options import Asked, Load, Server, command_line
from lostwax.cli.named_paths import OutFolder
from lostwax.cli.option_types import Json, OptionRefused
from lostwax.ir.contract.one_line import one_line

if TYPE_CHECKING:
    from lostwax.evals.load.drive import Load as PointLoad
    from lostwax.evals.load.drive import Measured
    from lostwax.evals.load.prompts import Prompt
    from lostwax.evals.load.report import Result
    from lostwax.evals.load.stream import Asker

INTERVAL_S = 10.0
"""Between two lines of how a load goes."""


class WarmUpFailed(RuntimeError):
    """The server does not answer what is asked; the message says what came."""


def bench_serve(
    *,
    server: Server,
    load: Load = Load(),  # noqa: B008  (they are frozen)
    asked: Asked = Asked(),  # noqa: B008
    out: Annotated[OutFolder | None, Parameter(group="Parameters")] = None,
    json_: Json = False,
) -> None:
    """Measure a server's latency and throughput under load.

    Any server of OpenAI's interface is asked. Tokens are counted by its usage, times are taken
    where they arrive. Requests that fail are counted by what was said, never tried again, and make
    the status 1.

    Parameters
    ----------
    out
        A folder for the results: a JSON file for each load, with the keys of `vllm bench serve`,
        and a chart of the sweep.
    json_
        Print the results as JSON on standard output.
    """
    asked.require_fits(server.endpoint)  # before numpy is imported
    max_open = _max_open(load)
    from lostwax.evals.load.chart import chart
    from lostwax.evals.load.report import table

    prompts = asked.make(server.endpoint, load.seed)
    results: list[Result] = []
    try:
        asyncio.run(_sweep(server, load, asked, prompts, out, results, max_open))
    except KeyboardInterrupt:
        kept = "" if out is None else f"; {out} holds them"
        say(f"stopped: {len(results)} of {len(load.points())} loads were finished{kept}")
        raise
    if out is not None and len(results) > 1:
        title = one_line(f"{results[0]['model_id']}, {results[0]['date']}", MAX_NAME)
        _write(out, "sweep.svg", chart(results, title).encode())
    if json_:
        result_json(results, indent=1)
    else:
        for line in table(results):
            result(line)
    if any(found["failed"] for found in results):
        raise SystemExit(1)


def _max_open(load: Load) -> int:
    """Connections that this process may open. OptionRefused where the sweep needs more."""
    from lostwax.server.gateway.room import max_connections

    wanted, most = max(concurrency or 1 for concurrency in load.concurrencies), max_connections()
    if wanted > most:
        raise OptionRefused(
            f"--max-concurrency {wanted} takes as many connections, and this process may open"
            f" {most}; raise the limit with ulimit -n"
        )
    return most


async def _sweep(
    server: Server,
    load: Load,
    asked: Asked,
    prompts: Iterator[Prompt],
    out: Path | None,
    results: list[Result],
    max_open: int,
) -> None:
    """Put each load on the server; results are kept as soon as they are there."""
    from lostwax.evals.connect import by_url, read_key
    from lostwax.evals.load.drive import measure
    from lostwax.evals.load.report import point_result
    from lostwax.evals.load.stream import Asker

    key = None if server.api_key_file is None else read_key(server.api_key_file)
    async with by_url(server.url, model=server.model, key=key) as served:
        asker = Asker(
            served.http,
            served.model,
            server.endpoint,
            server.timeout,
            temperature=asked.temperature,
            ignore_eos=asked.ignore_eos,
        )
        about = _about(server, load, asked, served.model)
        say(f"asking {served.model} at {served.http.base_url}")
        await _warm_up(asker, prompts, load)
        for point in load.points():
            told = _Progress(point).told
            measured = await measure(asker.ask, prompts, point, told, max_open)
            results.append(point_result(measured, point, about))
            if out is not None:
                _write(out, f"{_named(point)}.json", _encoded(results[-1]))
            if measured.is_gone:
                say("no connection can be made any more: what is left is not asked")
                return


async def _warm_up(asker: Asker, prompts: Iterator[Prompt], load: Load) -> None:
    """Ask what is not counted; a server that fails here would fail everything."""
    from lostwax.evals.load.drive import Load as PointLoad
    from lostwax.evals.load.drive import measure

    if not load.warmups:
        return
    most = max(concurrency or load.warmups for concurrency in load.concurrencies)
    warm = await measure(asker.ask, prompts, PointLoad(concurrency=most, num_prompts=load.warmups))
    if warm.failed:
        raise WarmUpFailed(
            f"{warm.failed} of {load.warmups} requests before the measurement failed:"
            f" {next(iter(warm.faults))}"
        )


def _about(server: Server, load: Load, asked: Asked, model: str) -> Result:
    import lostwax

    kind = "openai-chat" if server.endpoint == "chat" else "openai"
    return {
        "date": datetime.now().strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": kind,
        "backend": kind,
        "label": None,
        "model_id": model,
        "tokenizer_id": None,  # the server's usage counts
        "command": command_line(server, load, asked),
        "lostwax": lostwax.__version__,
    }


def _named(point: PointLoad) -> str:
    concurrency = "any" if point.concurrency is None else point.concurrency
    return f"rate-{point.rate:g}-concurrency-{concurrency}"


def _encoded(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def _write(out: Path, name: str, content: bytes) -> None:
    from lostwax.backends.runtime.whole_file import write_whole

    write_whole(out / name, content)


class _Progress:
    """A line now and then of how a load goes."""

    def __init__(self, point: PointLoad) -> None:
        self._name = _named(point)
        self._of = "" if point.num_prompts is None else f" of {point.num_prompts}"
        self._start_s = self._said_s = time.monotonic()

    def told(self, measured: Measured) -> None:
        """Hear of an answer."""
        now_s = time.monotonic()
        if now_s - self._said_s < INTERVAL_S:
            return
        self._said_s = now_s
        done = len(measured.answers) + measured.failed
        spent = f"{now_s - self._start_s:.0f} s"
        say(f"{self._name}: {done}{self._of}, {measured.failed} failed, {spent}")
