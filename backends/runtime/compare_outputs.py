"""Compares one output with the reference: errors, chosen sets, appended rows. Draws no inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lostwax.ir.contract.step import TRASH_PAGE
from lostwax.ir.reference.dtype import Array, Real, widen


class Mismatch(ValueError):
    """An output that cannot be compared: wrong shape or dtype, NaN, or values where none may be."""


@dataclass(frozen=True, slots=True)
class Errors:
    """Largest and RMS error, each relative to the reference's RMS."""

    max_error: float
    rms_error: float

    def worst(self, other: Errors) -> Errors:
        """The larger of each."""
        return Errors(max(self.max_error, other.max_error), max(self.rms_error, other.rms_error))


NONE = Errors(0.0, 0.0)

ROW_FLOOR = 0.1
"""A row's own RMS counts, but at least this share of the whole: rows near zero have no scale."""


def require_same_form(name: str, got: Array, want: Array) -> None:
    """Shapes and dtypes are equal, or Mismatch."""
    if got.shape != want.shape or got.dtype != want.dtype:
        raise Mismatch(
            f"{name}: got {got.dtype} {list(got.shape)}, want {want.dtype} {list(want.shape)}"
        )


def errors(name: str, got: Array, want: Array) -> Errors:
    """Errors of each row (last axis) relative to that row's RMS, the worst of all rows.

    An element's error is relative to its own size where that is larger than the RMS: rounding is
    relative. Infinite reference values must be met exactly; NaN never is.
    """
    g, w = widen(got), widen(want)
    infinite = np.isinf(w)
    if np.isnan(g).any() or not np.array_equal(np.isinf(g), infinite):
        raise Mismatch(f"{name}: NaN or infinity where the reference has none, or the reverse")
    if not np.array_equal(g[infinite], w[infinite]):
        raise Mismatch(f"{name}: an infinity has the wrong sign")
    g, w = np.where(infinite, 0.0, g), np.where(infinite, 0.0, w)
    if w.size == 0:
        return NONE
    count = np.maximum((~infinite).sum(axis=-1, keepdims=True), 1)

    def rms(x: Real) -> Real:
        return np.sqrt((x * x).sum(axis=-1, keepdims=True) / count)

    whole = float(np.sqrt((w * w).sum() / max((~infinite).sum(), 1)))
    if whole == 0.0:  # all zeros: nothing to be relative to
        difference = float(np.abs(g).max())
        return Errors(difference, difference)
    scale = np.maximum(rms(w), ROW_FLOOR * whole)
    difference = np.abs(g - w)
    relative = difference / np.maximum(scale, np.abs(w))
    return Errors(float(relative.max()), float((rms(difference) / scale).max()))


FP8_STEP = (1 / 32, 0.13)
"""From one number of fp8 to the next it is a 16th to an 8th of it; between these bounds, because
the reference's numbers are kept in few bits."""


def settled(got: Array, want: Array, share: float) -> Array:
    """`got`, but `want` where it is one step of fp8 off: in that share of the numbers, or in one.

    Where a kernel rounds its own sums to fp8, some lie so near the middle of two numbers that its
    last bit decides. If there are more of those, it rounds wrongly, and nothing is settled.
    """
    g, w = widen(got), widen(want)
    off, size = np.abs(g - w), np.abs(w)
    is_step = (off > FP8_STEP[0] * size) & (off <= FP8_STEP[1] * size)
    allowed = max(1.0, share * w.size) if share else 0.0
    return np.where(is_step, w, g) if is_step.sum() <= allowed else g


def rows_agree(got: Array, want: Array, *, as_sets: bool) -> Array:
    """Which rows hold the same integers, in the same order unless `as_sets`."""
    if got.ndim == 1:
        got, want = got[:, None], want[:, None]
    if as_sets:
        got, want = np.sort(got, axis=-1), np.sort(want, axis=-1)
    return (got == want).all(axis=-1)


def tied_rows_agree(got: Array, want: Array, scores: Array) -> Array:
    """Which rows choose equal scores, whichever index broke the tie (waiver `tie_order`)."""
    agree = rows_agree(got, want, as_sets=True)
    for row in np.flatnonzero(~agree):
        chosen, wanted = got[row][got[row] >= 0], want[row][want[row] >= 0]
        if chosen.size == wanted.size == np.unique(chosen).size:
            a, b = np.sort(scores[row, chosen]), np.sort(scores[row, wanted])
            agree[row] = np.array_equal(a, b)
    return agree


def require_untouched(
    name: str, got: Array, before: Array, slots: Array, page_tokens: int
) -> Array:
    """The slots that count, ascending; every row but those and the trash page is as before.

    The trash page may hold anything: padding writes there.
    """
    written = np.unique(slots[slots // page_tokens != TRASH_PAGE])
    untouched = np.ones(got.shape[0], dtype=bool)
    untouched[written] = False
    untouched[TRASH_PAGE * page_tokens : (TRASH_PAGE + 1) * page_tokens] = False
    if got[untouched].tobytes() != before[untouched].tobytes():
        raise Mismatch(f"{name}: rows outside the step's slots were changed")
    return written


def cache_errors(
    name: str,
    got: Array,
    want: Array,
    before: Array,
    slots: Array,
    page_tokens: int,
    decode: Callable[[Array], Array],
    share: float = 0.0,
) -> Errors:
    """Errors of the rows written at `slots`, decoded; the other rows must be as before.

    `share` of the numbers may be one step of fp8 off.
    """
    written = require_untouched(name, got, before, slots, page_tokens)
    found, wanted = decode(got[written]), decode(want[written])
    return errors(name, settled(found, wanted, share), wanted)
