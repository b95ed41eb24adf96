"""How far a lowering may be from the fp64 reference, by the coarsest dtype in its region."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Bounds on errors relative to the reference's RMS.

    `max_error` and `rms_error` as in `compare_outputs.errors`; `agreement` is the least share of
    rows whose chosen set must be the reference's where the scores are made inside the region (where
    scores are its inputs, every row must agree).
    """

    max_error: float
    rms_error: float
    agreement: float


FP8_AGREEMENT = 0.99
"""Of numbers that a region rounds to fp8 behind its own sums, the least share that must be within
the tolerance; the others may be one step off. A kernel that rounds halves up is off in 3 %."""
FP8_AGREEMENT_BEHIND_PRODUCTS = 0.92
"""The same where products or attention stand before the rounding: what matrix units sum differs in
the last bits, so bf16 values between differ by a step here and there, and attention's weights and
latents are bf16. Of its right kernels 2 to 6 % are off (golden probes of five layers at full width,
official formats, one H200, 2026-11-29). That they round as they should is shown where sums are
exact: in the interpreter, and in the regions without products."""

TOLERANCES: dict[str, Tolerance] = {
    "f64": Tolerance(1e-9, 1e-10, 1.0),
    # 2^-24 a rounding; a rotation angle of position p carries p * 2^-24 radians
    "f32": Tolerance(1e-4, 1e-5, 0.99),
    "f16": Tolerance(2e-2, 2e-3, 0.97),
    # 2^-9 a rounding, some roundings deep
    "bf16": Tolerance(5e-2, 1e-2, 0.9),
    # stored weights; activations are bf16, or are multiplied after widening
    "f8E4M3FN": Tolerance(5e-2, 1e-2, 0.9),
    "f8E4M3FNUZ": Tolerance(5e-2, 1e-2, 0.9),
}
"""From the finest to the coarsest; the order decides which one a region gets."""


def tolerance_of(dtypes: Iterable[str]) -> Tolerance:
    """The tolerance of a region whose values have these element types (integers do not count)."""
    order = list(TOLERANCES)
    ranks = [order.index(d) for d in dtypes if d in TOLERANCES]
    return TOLERANCES[order[max(ranks)]] if ranks else TOLERANCES["f64"]
