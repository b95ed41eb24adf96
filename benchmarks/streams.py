"""What the gateway pays for a streamed token beside a stream with nothing around it, over sockets.

    python benchmarks/streams.py [--out FILE]

For 1, 64 and 256 streams at once, in turn: the gateway's own time on a processor for each token
that its clients are sent (its engine, which computes nothing, is another process), and that of
FastAPI's StreamingResponse under uvicorn with events of the same length (`stream_servers.py`).
Steps come so often that neither is ever late. The best round of each counts, as other work on the
cores makes a round only slower.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from lostwax.backends.runtime.say import result

STREAMS = {1: 0.002, 64: 0.02, 256: 0.06}
"""Streams at once, and seconds between two tokens of each."""
SETTINGS: Mapping[str, tuple[str, list[str], str]] = {
    "bare": ("bare", [], "completions"),
    "completions": ("gateway", [], "completions"),
    "chat": ("gateway", [], "chat/completions"),
    "completions, --enable-metrics --log-requests": ("gateway", ["--metrics"], "completions"),
}
BODIES: Mapping[str, dict[str, Any]] = {
    "completions": {"prompt": [1, 2, 3]},
    "chat/completions": {"messages": [{"role": "user", "content": "Hi?"}]},
}
BARE = "bare"
ENDLESS = 900_000
"""Tokens of an answer: no stream ends while it is measured."""


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs."""

    port: int
    pid: int

    @property
    def cpu_s(self) -> float:
        """Seconds that its threads have run, to the nanosecond."""
        tasks = Path(f"/proc/{self.pid}/task")
        counts = [(task / "schedstat").read_text().split()[0] for task in tasks.iterdir()]
        return sum(map(int, counts)) / 1e9


@contextmanager
def served(kind: str, step_s: float, options: list[str], event_bytes: int) -> Generator[Server]:
    """A server of that kind while it is ready."""
    script = Path(__file__).with_name("stream_servers.py")
    command = [sys.executable, str(script), kind, str(step_s), *options]
    command += ["--event-bytes", str(event_bytes)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = ""
            while "is ready" not in said:
                line = process.stderr.readline()
                assert line, f"the server ended: {said}"
                said += line
            found = re.search(r"127\.0\.0\.1:(\d+)", said)
            assert found is not None, said
            yield Server(int(found[1]), process.pid)
        finally:
            process.terminate()


class Client(asyncio.Protocol):
    """Reads one stream and counts its events and their bytes."""

    def __init__(self) -> None:
        self.num_events = self.num_bytes = 0
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Part of the answer comes."""
        self.num_events += data.count(b"data: ")
        self.num_bytes += len(data)


async def _open(port: int, path: str) -> Client:
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_connection(Client, "127.0.0.1", port)
    wanted = {"max_tokens": ENDLESS, "stream": True, "ignore_eos": True}
    body = json.dumps(BODIES[path] | wanted).encode()
    head = f"POST /v1/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return client


async def measure(server: Server, path: str, streams: int, seconds: float) -> dict[str, float]:
    """Microseconds of the server a token, and bytes an event, over so many seconds."""
    clients = [await _open(server.port, path) for _ in range(streams)]
    while min(client.num_events for client in clients) < 3:
        await asyncio.sleep(0.05)
    before = sum(c.num_events for c in clients), sum(c.num_bytes for c in clients), server.cpu_s
    await asyncio.sleep(seconds)
    after = sum(c.num_events for c in clients), sum(c.num_bytes for c in clients), server.cpu_s
    for client in clients:
        assert client.transport is not None
        client.transport.close()
    events, num_bytes, cpu_s = (b - a for a, b in zip(before, after, strict=True))
    chunk_bytes = len(b"c8\r\n\r\n")
    return {
        "us_a_token": cpu_s / events * 1e6,
        "event_bytes": num_bytes / events - chunk_bytes,
        "tokens_a_second": events / seconds,
    }


def main() -> None:
    """Measure the settings in turn, print a table, write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--streams", type=int, nargs="*", default=list(STREAMS))
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    best: dict[str, dict[int, dict[str, float]]] = {name: {} for name in options.settings}
    event_bytes = 200
    for _ in range(options.rounds):
        for streams in options.streams:
            for name in sorted(options.settings, key=BARE.__eq__):  # which sends as long events
                kind, extra, path = SETTINGS[name]
                with served(kind, STREAMS[streams], extra, event_bytes) as server:
                    row = asyncio.run(measure(server, path, streams, options.seconds))
                if name == "completions":
                    event_bytes = round(row["event_bytes"])
                if (
                    streams not in best[name]
                    or row["us_a_token"] < best[name][streams]["us_a_token"]
                ):
                    best[name][streams] = row
    _print(best, options.streams)
    if options.out:
        report = {
            "command": " ".join(["python", "benchmarks/streams.py", *sys.argv[1:]]),
            "date": f"{date.today()}",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "load_average": os.getloadavg()[0],
            "seconds": options.seconds,
            "rounds": options.rounds,
            "step_s": {str(n): STREAMS[n] for n in options.streams},
            "best": {name: {str(n): row for n, row in of.items()} for name, of in best.items()},
        }
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def _print(best: dict[str, dict[int, dict[str, float]]], streams: list[int]) -> None:
    result(f"{'us a streamed token':<46}" + "".join(f"{n:>9} streams" for n in streams))
    for name, rows in best.items():
        cells = [f"{rows[n]['us_a_token']:9.1f}" for n in streams]
        if name != BARE and BARE in best:
            more = [rows[n]["us_a_token"] - best[BARE][n]["us_a_token"] for n in streams]
            cells = [f"{cell} ({m:+.1f})" for cell, m in zip(cells, more, strict=True)]
        result(f"{name:<46}" + "".join(f"{cell:>17}" for cell in cells))


if __name__ == "__main__":
    main()
