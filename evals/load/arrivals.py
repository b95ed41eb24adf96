"""When requests arrive. Knows no request and no clock."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator


def arrivals(rate: float, seed: int) -> Iterator[float]:
    """Seconds behind the start, without end: a Poisson process of `rate` requests a second, all at
    0 where that is infinite."""
    draw = random.Random(seed)
    at_s = 0.0
    while True:
        yield at_s
        if not math.isinf(rate):
            at_s += draw.expovariate(rate)
