"""Tokens a second that openai-python's client sees of a server, at several concurrencies.

    lostwax serve ARTIFACT --checkpoint models/tiny/weights --drafts 3 --port 8100
    python benchmarks/openai_streams.py http://127.0.0.1:8100 --concurrency 1 8 --out FILE

Each client streams one greedy completion after another until a time is over; a stream that began
before the time and ends behind it counts whole, with the time until it ended.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

PROMPT = "Once upon a time there was a little {} who lived near the {}. One day"
WHO = ("cat", "dog", "bird", "girl", "boy", "bear", "frog", "fox")
WHERE = ("river", "forest", "house", "lake", "park")
MAX_TOKENS = 200


async def _client(
    client: AsyncOpenAI, model: str, number: int, until: float, tokens: list[int]
) -> None:
    turn = number
    while time.perf_counter() < until:
        prompt = PROMPT.format(WHO[turn % len(WHO)], WHERE[turn % len(WHERE)])
        stream = await client.completions.create(
            model=model,
            prompt=prompt,
            max_tokens=MAX_TOKENS,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        async for part in stream:
            if part.usage:
                tokens.append(part.usage.completion_tokens)
        turn += 1


async def measure(url: str, concurrency: int, seconds: float) -> dict[str, Any]:
    """Completion tokens and seconds of `concurrency` clients, as the server's usage counts."""
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        model = (await client.models.list()).data[0].id
        tokens: list[int] = []
        begin = time.perf_counter()
        await asyncio.gather(
            *(_client(client, model, i, begin + seconds, tokens) for i in range(concurrency))
        )
        took = time.perf_counter() - begin
    return {
        "concurrency": concurrency,
        "answers": len(tokens),
        "tokens": sum(tokens),
        "seconds": round(took, 3),
        "tokens_per_s": round(sum(tokens) / took, 1),
    }


def main() -> None:
    """Print one line a concurrency, and write all as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--concurrency", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    asyncio.run(measure(given.url, 1, 1.0))  # the first answers find caches cold
    rows = [asyncio.run(measure(given.url, c, given.seconds)) for c in given.concurrency]
    for row in rows:
        print(json.dumps(row))
    if given.out:
        given.out.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
