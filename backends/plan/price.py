"""What a candidate costs: a measured record where one exists, else an estimate. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from lostwax.backends.plan.candidate import Candidate
from lostwax.ir.contract.target import Target


@dataclass(frozen=True, slots=True)
class Price:
    """Microseconds in whole picoseconds (so that sums do not depend on their order).

    `picoseconds` are of the launches of a layer, `prepared` its share of what a step prepares.
    """

    picoseconds: int
    source: Literal["record", "estimate", "view"]
    knobs: Mapping[str, int]
    prepared: int = 0

    @property
    def total(self) -> int:
        """What a cover of least price adds up."""
        return self.picoseconds + self.prepared

    @property
    def micros(self) -> float:
        """The total, for people."""
        return self.total / 1e6


class Measurements(Protocol):
    """Records as the pricer asks for them."""

    def best(self, candidate: Candidate) -> tuple[float, Mapping[str, int]] | None:
        """Median microseconds and knobs of the fastest certified record, None without one."""
        ...


class NoMeasurements:
    """An empty store: everything is estimated."""

    def best(self, candidate: Candidate) -> None:
        """No record."""
        return None


def _rate_dtype(candidate: Candidate, target: Target) -> str:
    """The dtype whose matrix rate applies: that of the region's first input with a rate."""
    for name in candidate.region.region.inputs:
        bound = candidate.region.values[name]
        if not isinstance(bound, tuple) and candidate.dtype(name) in target.tflops:
            return candidate.dtype(name)
    return next(iter(target.tflops))


def estimate_us(candidate: Candidate, knobs: Mapping[str, int]) -> float:
    """Roofline and launches: max(bytes / bandwidth, flops / rate) + launches * launch_us."""
    assert candidate.lowering is not None
    target = candidate.target
    work = candidate.lowering.work(candidate, knobs)
    memory_us = work.num_bytes / (target.bandwidth_gbps * 1e3)
    compute_us = work.flops / (target.tflops[_rate_dtype(candidate, target)] * 1e6)
    return max(memory_us, compute_us) + work.launches * target.launch_us


def price(candidate: Candidate, measurements: Measurements, knobs: Mapping[str, int]) -> Price:
    """The candidate's price in its program's bucket; `knobs` are those of an estimate."""
    if candidate.lowering is None:
        return Price(0, "view", {})
    measured = measurements.best(candidate)
    if measured is not None:
        us, tuned = measured
        return Price(round(us * 1e6), "record", dict(tuned))
    return Price(round(estimate_us(candidate, knobs) * 1e6), "estimate", dict(knobs))
