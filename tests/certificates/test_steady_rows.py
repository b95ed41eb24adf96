"""Rows led by a number in the middle of two fp8 numbers are not compared; all others are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from lostwax.backends.proof.steady_rows import NUDGE, steady_rows
from lostwax.ir.reference.dtype import Scaled, widen
from lostwax.ir.reference.quant import quantise

ROWS, WIDTH, BLOCK = 12, 1024, 128
MIDDLE = 272 / 4
"""Of a block whose largest number this is, it lies between 256 and 288 scales of 1 / 4."""


class _Region:
    """A region of one activation: doubled, rounded to fp8 in blocks with ue8m0 scales, multiplied.

    Stands for a RegionSample: what it reads of one is here.
    """

    def __init__(self, scale_fmt: str) -> None:
        self.scale_fmt = scale_fmt
        kind = SimpleNamespace(dtype_name="f32")
        self.x, self.out = _Named(kind), _Named(kind)
        self.drawn: dict[Any, Any] = {self.x: ()}
        self.columns: dict[Any, Any] = {self.out: np.arange(16)}
        self.rows = SimpleNamespace(of=_every_row)
        self.weight = np.random.default_rng(5).standard_normal((WIDTH, 16))

    def evaluate(self, values: dict[Any, Any]) -> None:
        x = (2 * widen(values[self.x])).astype(np.float32)
        rounded = quantise(x, scale_fmt=self.scale_fmt, dtype="f8E4M3FN", block=BLOCK)
        values[self.out] = widen(rounded) @ self.weight


def _every_row(kind: object) -> np.ndarray:
    return np.arange(ROWS)


class _Named:
    def __init__(self, kind: object) -> None:
        self.type = kind


def _steady(
    leading: dict[int, float], *, scaled: bool = False, scale_fmt: str = "ue8m0"
) -> list[int]:
    """Rows that are compared, where these are led by such a number behind the doubling."""
    region = _Region(scale_fmt)
    x = np.random.default_rng(6).uniform(-1, 1, (ROWS, WIDTH))
    for row, number in leading.items():
        x[row] *= 0.01
        x[row, 5] = number / 2
        if scale_fmt != "ue8m0":  # in a block whose largest number has a scale of 1 / 4
            x[row, 7] = 448 / 4 / 2
    given: Any = Scaled(x, np.ones((ROWS, WIDTH // BLOCK)), 1, BLOCK) if scaled else x
    drawn: dict[Any, Any] = {region.x: given}
    found = dict(drawn)
    region.evaluate(found)
    steady: dict[Any, Any] = cast(Any, steady_rows(drawn, found, cast(Any, region)))
    return np.flatnonzero(steady[region.out]).tolist()


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_row_led_by_a_number_between_two_is_left_out(side: int, scaled: bool) -> None:
    at = MIDDLE * (1 + side * NUDGE / 2)
    away = MIDDLE * (1 + side * 4 * NUDGE)
    assert _steady({3: at, 7: away}, scaled=scaled) == [i for i in range(ROWS) if i != 3]


def test_a_scale_that_is_no_power_of_two_hides_no_such_row() -> None:
    kept = _steady({3: MIDDLE * (1 - NUDGE / 10)}, scale_fmt="fp32")
    assert kept == [i for i in range(ROWS) if i != 3]


def test_a_row_led_by_nobody_is_compared() -> None:
    assert _steady({}) == list(range(ROWS))


def test_half_of_the_rows_are_compared_in_any_case() -> None:
    kept = _steady(dict.fromkeys(range(ROWS), MIDDLE * (1 + NUDGE / 2)))
    assert len(kept) == ROWS // 2
