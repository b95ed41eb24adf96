"""YaRN rotation frequencies (Peng et al. 2023, arXiv:2309.00071, section 3.2). Knows no tensor."""

from __future__ import annotations

from math import ceil, floor, log, pi

import numpy as np

from lostwax.ir.reference.dtype import Real


def correction_range(
    dim: int, theta: float, original_len: int, beta_fast: float, beta_slow: float
) -> tuple[int, int]:
    """First and last pair between which frequencies are blended.

    Pair corr(r) turns r times over the original context: dim ln(L0 / (2 pi r)) / (2 ln theta).
    """

    def corr(rotations: float) -> float:
        return dim * log(original_len / (2 * pi * rotations)) / (2 * log(theta))

    return max(floor(corr(beta_fast)), 0), min(ceil(corr(beta_slow)), dim - 1)


def inverse_frequencies(
    dim: int,
    *,
    theta: float,
    factor: float,
    original_len: int,
    beta_fast: float,
    beta_slow: float,
) -> Real:
    """Radians a position for each of dim/2 pairs; plain RoPE where factor is 1.

    Pairs that turn often keep their frequency, slow ones are divided by `factor`, a linear ramp
    lies between.
    """
    plain = theta ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)
    if factor == 1:
        return plain
    low, high = correction_range(dim, theta, original_len, beta_fast, beta_slow)
    width = max(high - low, 1e-3)  # the official code's guard against an empty ramp
    ramp = np.clip((np.arange(dim // 2) - low) / width, 0, 1)
    return plain / factor * ramp + plain * (1 - ramp)


def magnitude(factor: float, mscale: float) -> float:
    """m = 0.1 mscale ln(factor) + 1; attention's softmax scale is multiplied by m^2."""
    return 1.0 if factor <= 1 else 0.1 * mscale * log(factor) + 1.0
