"""The engine is killed again and again while it streams: everyone is told, nothing is mixed up.

The fake runtime's tokens depend on the whole prompt, so a token of another stream is a wrong one.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fake_runtime import VOCAB, generate
from supervised_server import supervised

STREAMS = 6
"""Two more than run at once: those wait and are told as well."""
MAX_TOKENS = 40
STEP_S = 0.01
TOLD_S = 2.0


@dataclass
class Stream:
    """One client's stream: what it asked, and what it was sent."""

    prompt: list[int]
    temperature: float
    seed: int
    tokens: list[int] = field(default_factory=list[int])
    error: dict[str, Any] | None = None
    is_done: bool = False
    ended_s: float = 0.0

    async def run(self, client: httpx.AsyncClient) -> None:
        """Read to its end."""
        body = {
            "prompt": self.prompt,
            "temperature": self.temperature,
            "seed": self.seed,
            "max_tokens": MAX_TOKENS,
            "ignore_eos": True,
            "return_token_ids": True,
            "stream": True,
        }
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            assert answer.status_code == 200
            event = ""
            async for line in answer.aiter_lines():
                name, _, text = line.partition(": ")
                if name == "event":
                    event = text
                elif text == "[DONE]":
                    self.is_done = True
                elif name == "data" and event == "error":
                    self.error = json.loads(text)["error"]
                elif name == "data":
                    self.tokens += json.loads(text)["choices"][0]["token_ids"]
        self.ended_s = time.monotonic()

    def alone(self, count: int) -> list[int]:
        """What it must be sent, whatever runs beside it."""
        return generate(self.prompt, count, self.temperature, self.seed)


def _streams(rng: random.Random) -> list[Stream]:
    return [
        Stream(
            prompt=[rng.randrange(VOCAB - 1) for _ in range(rng.randint(1, 20))],
            temperature=rng.choice([0.0, 1.0]),
            seed=rng.randrange(100),
        )
        for _ in range(STREAMS)
    ]


async def _killed_while_they_run(
    url: str, streams: list[Stream], pid: int, rng: random.Random
) -> float:
    """When the engine was killed: after the first tokens, at any instant of a step."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        tasks = [asyncio.create_task(stream.run(client)) for stream in streams]
        while not any(stream.tokens for stream in streams):
            await asyncio.sleep(0.001)
        await asyncio.sleep(rng.uniform(0, 20 * STEP_S))
        os.kill(pid, signal.SIGKILL)
        killed_s = time.monotonic()
        await asyncio.gather(*tasks)
    return killed_s


def _kill(count: int) -> None:
    rng = random.Random(7)
    num_told = 0
    with supervised(step_s=STEP_S) as (engine, readiness, client):
        for _ in range(count):
            assert engine.pid is not None
            streams = _streams(rng)
            url = str(client.base_url)
            killed_s = asyncio.run(_killed_while_they_run(url, streams, engine.pid, rng))
            for stream in streams:
                assert stream.tokens == stream.alone(len(stream.tokens))
                if stream.is_done:  # before the kill
                    assert (len(stream.tokens), stream.error) == (MAX_TOKENS, None)
                    continue
                assert stream.error is not None, "neither an end nor an error"
                assert stream.error["code"] == "engine_unavailable"
                assert stream.ended_s - killed_s < TOLD_S
                num_told += 1
            readiness.wait()
            (again,) = _streams(rng)[:1]
            asyncio.run(_run_alone(url, again))
            assert (again.tokens, again.is_done) == (again.alone(MAX_TOKENS), True)
        assert engine.num_restarts == count
    assert num_told > count * STREAMS / 2, "most streams ended before the engine was killed"


async def _run_alone(url: str, stream: Stream) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        await stream.run(client)


def test_two_kills() -> None:
    _kill(2)


@pytest.mark.clients
def test_a_hundred_kills() -> None:
    _kill(100)
