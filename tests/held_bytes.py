"""What a call holds at most beyond what it was given, as torch's profiler sees it on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

from torch.profiler import ProfilerActivity, profile


def most_held(call: Callable[[], None]) -> int:
    """Bytes at the peak of the call, which is made once."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        call()
    events = seen.profiler.kineto_results.events()  # pyright: ignore
    named = (e for e in events if e.name() == "[memory]")
    changes = sorted((e.start_ns(), e.nbytes()) for e in named)  # pyright: ignore
    return max(accumulate((change for _, change in changes), initial=0))
