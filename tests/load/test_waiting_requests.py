"""10,000 requests wait, and nobody else notices: the queue is bounded, its length costs nothing."""

from __future__ import annotations

import asyncio
import json
import time

import httpx
import pytest
from loop_gaps import Gap
from machine_gaps import longest_held_s, machine_gaps
from stream_clients import run_beside
from watched_gateway import LIMITS, WatchedGateway, watched_gateway

WAITING, PROMPTS = 10_000, 200
MAX_GAP_S = 0.05


def _many(count: int) -> bytes:
    body = {"prompt": [[1, 2, number % 50] for number in range(count)], "max_tokens": 400}
    return json.dumps(body | {"ignore_eos": True, "stream": True}).encode()


async def _begin(gateway: WatchedGateway, count: int) -> asyncio.StreamWriter:
    """A request of so many prompts; its answer is read by nobody."""
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    content = _many(count)
    head = "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return writer


def _wait_for(gateway: WatchedGateway, waiting: int) -> dict[str, float]:
    until = time.monotonic() + 60
    while True:
        metrics = gateway.metrics()
        found = sum(n for name, n in metrics.items() if "requests_waiting" in name)
        found += metrics["lostwax_num_requests_running"]
        if found == waiting or time.monotonic() > until:
            assert found == waiting
            return metrics
        time.sleep(0.1)


async def _fill(gateway: WatchedGateway) -> list[Gap]:
    """Fill the queue, look at it, and leave; the gaps of the gateway's loop meanwhile."""
    writers = [await _begin(gateway, PROMPTS) for _ in range(WAITING // PROMPTS)]
    await asyncio.to_thread(_wait_for, gateway, WAITING)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{gateway.port}", timeout=20) as client:
        refused = await client.post("/v1/completions", json={"prompt": [1]})
        assert refused.status_code == 429, refused.text
        assert refused.json()["error"]["code"] == "queue_full"
        for _ in range(20):
            assert (await client.get("/health")).status_code == 200
    for writer in writers:
        writer.transport.abort()
    await asyncio.to_thread(_wait_for, gateway, 0)
    return await asyncio.to_thread(gateway.gaps)


@pytest.mark.load
def test_ten_thousand_waiting_requests_hold_nobody_up() -> None:
    full = watched_gateway(max_queued=WAITING, num_pages=1 + LIMITS.max_reqs * 4)
    with full as gateway, machine_gaps() as of_machine:
        gaps = run_beside(_fill(gateway))
        assert httpx.get(f"http://127.0.0.1:{gateway.port}/health").json()["running"] == 0
    gap_s = longest_held_s(gaps, of_machine)
    assert gap_s < MAX_GAP_S, f"the loop was held for {1e3 * gap_s:.0f} ms"
