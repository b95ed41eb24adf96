"""Means and percentiles of times. Knows no request."""

from __future__ import annotations

import math
from collections.abc import Sequence

PERCENTILES = (50, 90, 95, 99)


def percentile(ascending: Sequence[float], percent: float) -> float:
    """Linear between the two nearest values, as numpy's default; `ascending` holds at least one."""
    place = (len(ascending) - 1) * percent / 100
    below = math.floor(place)
    low, high = ascending[below], ascending[min(below + 1, len(ascending) - 1)]
    return low + (high - low) * (place - below)


def described_ms(seconds: Sequence[float], name: str) -> dict[str, float | None]:
    """Milliseconds by the keys of `vllm bench serve`, such as `p99_ttft_ms`; None of no values."""
    keys = ("mean", "median", "std", *(f"p{percent}" for percent in PERCENTILES))
    values = _described(seconds) if seconds else [None] * len(keys)
    return {
        f"{key}_{name}_ms": None if value is None else value * 1e3
        for key, value in zip(keys, values, strict=True)
    }


def _described(seconds: Sequence[float]) -> list[float]:
    ascending = sorted(seconds)
    mean = math.fsum(ascending) / len(ascending)
    variance = math.fsum((value - mean) ** 2 for value in ascending) / len(ascending)
    found = [percentile(ascending, percent) for percent in PERCENTILES]
    return [mean, percentile(ascending, 50), math.sqrt(variance), *found]
