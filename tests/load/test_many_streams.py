"""256 streams for ten minutes, among them slow readers, clients that leave, half-open connections.

Every answer is right, nothing grows, no page is lost, and the gateway's loop is never held for
long but by a machine that stops. `--load-seconds 60` is a shorter look.
"""

from __future__ import annotations

import asyncio
import random
import time
from statistics import mean

import pytest
from fake_runtime import VOCAB, generate
from loop_gaps import Gap
from machine_gaps import longest_held_s, machine_gaps
from stream_clients import Manner, Question, Tally, ask, hold_half_open, run_beside
from watched_gateway import WatchedGateway, watched_gateway

STREAMS, HALF_OPEN = 256, 8
SECONDS = 600.0
RAMP_S = 5.0
"""In which the streams begin: so many that come in one moment are begun in one turn of the loop."""
NUM_PAGES = 1024
"""Less than what 256 requests grow to: some give way."""
MAX_GAP_S = 0.05
MAX_GROWTH_BYTES = 16 << 20
"""From the second fifth of the time to the last; a leak of 100 bytes a token has thrice that."""
MANNERS: tuple[Manner, ...] = ("at once", "at once", "at once", "slowly", "half")


def _questions(count: int) -> list[Question]:
    """Prompts that begin alike, half of the answers sampled."""
    rng = random.Random(7)
    stems = [[rng.randrange(VOCAB - 1) for _ in range(64)] for _ in range(4)]
    questions: list[Question] = []
    for number in range(count):
        tail = [rng.randrange(VOCAB - 1) for _ in range(rng.randrange(1, 24))]
        prompt, most = stems[number % 4] + tail, rng.randrange(40, 300)
        temperature = float(number % 2)
        body = {"prompt": prompt, "max_tokens": most, "temperature": temperature, "seed": number}
        want = generate(prompt, most, temperature, number)
        questions.append(Question(body | {"ignore_eos": True}, want))
    return questions


async def _stream(gateway: WatchedGateway, questions: list[Question], seconds: float) -> Tally:
    tally, until = Tally(), time.monotonic() + seconds

    async def client(number: int) -> None:
        rng = random.Random(number)
        await asyncio.sleep(RAMP_S * number / STREAMS)
        while time.monotonic() < until and not tally.wrong:
            await ask(gateway.port, rng.choice(questions), rng.choice(MANNERS), tally)

    clients = [client(number) for number in range(STREAMS)]
    await asyncio.gather(
        *clients, *(hold_half_open(gateway.port, seconds) for _ in range(HALF_OPEN))
    )
    return tally


async def _watched(
    gateway: WatchedGateway, questions: list[Question], seconds: float
) -> tuple[Tally, list[dict[str, int]], list[Gap]]:
    """What clients saw, the memory each second, and the gaps of the loop."""
    sizes: list[dict[str, int]] = []
    streaming = asyncio.create_task(_stream(gateway, questions, seconds))
    while not streaming.done():
        sizes.append(gateway.rss_bytes)
        await asyncio.wait({streaming}, timeout=1.0)
    return streaming.result(), sizes, await asyncio.to_thread(gateway.gaps)


def _idle_metrics(gateway: WatchedGateway) -> dict[str, float]:
    """Once nothing runs: what clients left is noticed within moments."""
    until = time.monotonic() + 20
    while True:
        metrics = gateway.metrics()
        if not metrics["lostwax_num_requests_running"] or time.monotonic() > until:
            return metrics
        time.sleep(0.2)


@pytest.mark.load
def test_256_streams_leave_nothing_behind_and_hold_nobody_up(
    request: pytest.FixtureRequest,
) -> None:
    seconds: float = request.config.getoption("--load-seconds") or SECONDS
    questions = _questions(64)
    with watched_gateway(num_pages=NUM_PAGES) as gateway, machine_gaps() as of_machine:
        tally, sizes, gaps = run_beside(_watched(gateway, questions, seconds))
        metrics = _idle_metrics(gateway)
    assert not tally.wrong, tally.wrong[0]
    assert tally.finished > STREAMS
    assert tally.left > STREAMS / 8
    assert metrics["lostwax_num_requests_running"] == 0
    assert metrics['lostwax_cache_pages{state="used"}'] == 0
    assert metrics["lostwax_preemptions_total"] > 0
    assert metrics["lostwax_prefix_cache_hit_tokens_total"] > 0
    failures = {name: n for name, n in metrics.items() if "failed" in name or "unavailable" in name}
    assert not any(failures.values()), failures
    fifth = len(sizes) // 5
    for name in ("gateway", "engine"):
        early, late = (
            mean(size[name] for size in part) for part in (sizes[fifth : 2 * fifth], sizes[-fifth:])
        )
        assert late - early < MAX_GROWTH_BYTES, f"{name}: {early} to {late} bytes"
    gap_s = longest_held_s(gaps, of_machine)
    assert gap_s < MAX_GAP_S, f"the loop was held for {1e3 * gap_s:.0f} ms"
