"""Which sampled rows of a probe no rounding can turn over. Runs nothing but the reference.

Where a region rounds to fp8 behind its own products, and one number leads what follows in a row,
the last bit of a sum decides on which side of two fp8 numbers it falls, and with it a sixteenth of
the whole row. Such a row says nothing of a kernel. It is found by reading all activations a little
larger, and a little smaller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from xdsl.ir import SSAValue

from lostwax.backends.proof.sample_region import RegionSample
from lostwax.backends.proof.tolerance import ROUNDED_BETWEEN
from lostwax.backends.runtime.draw import as_rows
from lostwax.ir.reference.cache_bytes import CacheBytes
from lostwax.ir.reference.dtype import Array, Scaled, widen
from lostwax.ir.reference.interpret import Bound

NUDGE = 1e-3
"""More than a kernel's sums are off by: rows that do not turn over are off by 5e-3 at most behind
the rounding (the tiny model's experts, one H200, 2026-11-29)."""
LEAST_STEADY = 0.5
"""The share of rows that is compared in any case, those that move least."""


def nudged(
    values: Mapping[SSAValue, Bound], sample: RegionSample, factor: float
) -> dict[SSAValue, Bound]:
    """Drawn inputs of a region, with the activations among them `factor` times as large."""
    found = dict(values)
    for value in sample.drawn:
        bound = values[value]
        if sample.rows.of(value.type) is None or isinstance(bound, CacheBytes):
            continue
        if isinstance(bound, Scaled):
            found[value] = replace(bound, scales=widen(bound.scales) * factor)
        elif isinstance(bound, np.ndarray) and bound.dtype.kind not in "iu":
            found[value] = widen(bound) * factor
    return found


def steady_rows(
    values: Mapping[SSAValue, Bound],
    found: Mapping[SSAValue, Bound],
    sample: RegionSample,
) -> dict[SSAValue, Array]:
    """By result, which of its sampled rows move less than the tolerance where the inputs do.

    `values` are the drawn inputs, `found` these and the reference's results of them.
    """
    moved: dict[SSAValue, Array] = {}
    for factor in (1 - NUDGE, 1 + NUDGE):
        others = nudged(values, sample, factor)
        sample.evaluate(others)
        for value in sample.columns:
            want, got = as_rows(widen(found[value])), as_rows(widen(others[value]))
            scale = np.sqrt(np.mean(want**2)) or 1.0
            share = np.sqrt(np.mean((got - want) ** 2, axis=1)) / scale
            moved[value] = np.maximum(moved.get(value, share), share)
    return {value: _steady(share) for value, share in moved.items()}


def _steady(moved: Array) -> Array:
    """bool [rows]."""
    order = np.argsort(moved, kind="stable")
    least = np.zeros(moved.size, bool)
    least[order[: int(np.ceil(moved.size * LEAST_STEADY))]] = True
    return least | (moved < ROUNDED_BETWEEN)
