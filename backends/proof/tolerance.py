"""How far a lowering may be from the fp64 reference, by the coarsest dtype in its region."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace


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
FP8_AGREEMENT_BEHIND_PRODUCTS = 0.85
"""The same where products or attention stand before the rounding: what matrix units sum differs in
the last bits, so bf16 values between differ by a step here and there, and attention's weights and
latents are bf16. A sum that is off by 2e-3 of the RMS lies across the middle of two numbers in
about 2 * 2e-3 / 0.09 of numbers of that size, in more of smaller ones: 13 % of a normal
distribution. Of the right kernels 2 to 6 % are off at full width, 8 to 10 % of attention over few
positions in the tiny model (golden probes, official formats, one H200, 2026-11-29). That they round
as they should is shown where sums are exact: in the interpreter, and in the regions without
products."""

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
    # given as it is; what is rounded to it inside is a 127th of its row's largest number off
    "si8": Tolerance(5e-2, 1e-2, 0.9),
}
"""From the finest to the coarsest; the order decides which one a region gets."""


WAIVERS: dict[str, float] = {"bf16_query": 2.0, "bf16_hidden": 2.0, "bf16_angles": 2.0}
"""By a lowering's waiver, how many times the bounds its results may be off, because the vendor's
operators that it calls take a value inside in bf16 only. `bf16_query`: the query in the latent
space. A score that is large by itself is then off by 2^-9 of it, which moves weights; the kit's
large row shows it. `bf16_hidden`: what is rounded to int8 next, which then is a step off more
often. `bf16_angles`: cosines and sines, so that what is rotated is rounded twice."""

ROUNDED_BETWEEN = 2e-2
"""RMS error of a region that rounds its own sums to fp8 and goes on: where one number in 20 is a
step off, of 9 % on average, what follows is off by 0.09 * sqrt(1 / 20). Up to 1.1e-2 was measured
(the tiny model's gated products, one H200, 2026-11-29)."""


LOOSEST = Tolerance(
    max_error=max(WAIVERS.values()) * max(t.max_error for t in TOLERANCES.values()),
    rms_error=max(WAIVERS.values()) * ROUNDED_BETWEEN,
    agreement=min(t.agreement for t in TOLERANCES.values()),
)
"""What no lowering may be beyond, whatever its region and waiver."""


def tolerance_of(
    dtypes: Iterable[str], *, rounds_between: bool = False, waiver: str = ""
) -> Tolerance:
    """The tolerance of a region whose values have these element types (integers do not count);
    `rounds_between`: products follow on what it rounds to fp8 behind its own products. With a
    waiver of WAIVERS, so many times the bounds."""
    order = list(TOLERANCES)
    ranks = [order.index(d) for d in dtypes if d in TOLERANCES]
    found = TOLERANCES[order[max(ranks)]] if ranks else TOLERANCES["f64"]
    if rounds_between:
        found = replace(found, rms_error=ROUNDED_BETWEEN)
    factor = WAIVERS.get(waiver, 1.0)
    return replace(found, max_error=factor * found.max_error, rms_error=factor * found.rms_error)
