"""The estimate of a lowering, by numbers that are added up by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from lostwax.backends.cpu.target import CPU
from lostwax.backends.lowering import Work
from lostwax.backends.plan.price import estimate_us

TARGET = msgspec.structs.replace(
    CPU, bandwidth_gbps=100.0, tflops={"f32": 2.0, "bf16": 4.0}, launch_us=3.0
)


def _candidate(work: Work, dtype: str) -> Any:
    """As much of one as an estimate looks at."""

    def of_work(candidate: Any, knobs: Any) -> Work:
        return work

    def of_dtype(name: str) -> str:
        return dtype

    region = SimpleNamespace(region=SimpleNamespace(inputs=("x",)), values={"x": None})
    lowering = SimpleNamespace(work=of_work)
    return SimpleNamespace(target=TARGET, lowering=lowering, region=region, dtype=of_dtype)


@pytest.mark.parametrize(
    ("num_bytes", "flops", "dtype", "launches", "wanted_us"),
    [
        (1e6, 8e6, "f32", 2, 10 + 6),  # 1 MB at 100 GB/s takes longer than 8 MFLOP at 2 TFLOP/s
        (1e5, 8e6, "f32", 2, 4 + 6),
        (1e5, 8e6, "bf16", 1, 2 + 3),
        (0, 0, "f32", 1, 3),
    ],
)
def test_the_slower_of_memory_and_arithmetic_counts_and_each_launch(
    num_bytes: float, flops: float, dtype: str, launches: int, wanted_us: float
) -> None:
    found = estimate_us(_candidate(Work(num_bytes, flops, launches), dtype), {})
    assert found == pytest.approx(wanted_us)
