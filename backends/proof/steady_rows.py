"""Which sampled rows of a probe no rounding can turn over. Runs nothing but the reference.

Where a region rounds to fp8 behind its own products, and one number leads what follows in a row,
the last bit of a sum decides on which side of two fp8 numbers it falls, and with it a sixteenth of
the whole row. Such a row says nothing of a kernel. It is found by reading all activations a little
larger, and a little smaller, and each by itself either way: a scale that is no power of two follows
what all have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

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
SEEDS = (0, 1)
"""Two numbers of a block go opposite ways in one of these more often than not."""
LEAST_STEADY = 0.5
"""The share of rows that is compared in any case, those that move least."""


def nudged(
    values: Mapping[SSAValue, Bound], sample: RegionSample, by: float, seed: int | None
) -> dict[SSAValue, Bound]:
    """Drawn inputs of a region, with the activations among them larger by a share `by`: all alike,
    or, with a seed, each number or block with a scale either larger or smaller."""
    found, rng = dict(values), np.random.default_rng(seed)
    for value in sample.drawn:
        bound = values[value]
        if sample.rows.of(value.type) is None or isinstance(bound, CacheBytes):
            continue
        numbers = bound.scales if isinstance(bound, Scaled) else bound
        if numbers.dtype.kind in "iu":
            continue
        sides = 1.0 if seed is None else rng.choice((-1.0, 1.0), numbers.shape)
        moved = widen(numbers) * (1 + by * sides)
        found[value] = replace(bound, scales=moved) if isinstance(bound, Scaled) else moved
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
    for by, seed in product((-NUDGE, NUDGE), (None, *SEEDS)):
        others = nudged(values, sample, by, seed)
        sample.evaluate(others)
        for value in sample.columns:
            want, got = _rows_of(found[value]), _rows_of(others[value])
            scale = np.sqrt(np.mean(want**2)) or 1.0
            share = np.sqrt(np.mean((got - want) ** 2, axis=1)) / scale
            moved[value] = np.maximum(moved[value], share) if value in moved else share
    return {value: _steady(share) for value, share in moved.items()}


def _rows_of(bound: Bound) -> Array:
    """[rows, columns]."""
    assert not isinstance(bound, CacheBytes), "what has columns is no cache"
    return as_rows(widen(bound))


def _steady(moved: Array) -> Array:
    """bool [rows]."""
    order = np.argsort(moved, kind="stable")
    least = np.zeros(moved.size, bool)
    least[order[: int(np.ceil(moved.size * LEAST_STEADY))]] = True
    return least | (moved < ROUNDED_BETWEEN)
