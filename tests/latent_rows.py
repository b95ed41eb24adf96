"""MLA's cached rows as bytes, and what they say. Knows no page and no request."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

LATENT, ROPE = 512, 64

Real = NDArray[np.float64]
Bytes = NDArray[np.uint8]


def encode(layout: str, latent: Real, rope: Real) -> tuple[Bytes, Real]:
    """Rows [n, row_bytes], and what they say: f64 [n, 576]."""
    fp8, bf16 = ml_dtypes.float8_e4m3fn, ml_dtypes.bfloat16
    if layout == "bf16":
        stored = np.concatenate([latent, rope], 1).astype(bf16)
        return stored.view(np.uint8), stored.astype(np.float64)
    if layout == "fp8_576":
        stored = np.concatenate([latent, rope], 1).astype(fp8)
        return stored.view(np.uint8), stored.astype(np.float64)
    blocks = latent.reshape(-1, 4, 128)
    scale = (np.abs(blocks).max(-1) / 448).astype(np.float32)
    first = (blocks / scale[:, :, None]).astype(fp8)
    tail = rope.astype(bf16)
    raw = [first.reshape(-1, LATENT).view(np.uint8), scale.view(np.uint8), tail.view(np.uint8)]
    wide = (first.astype(np.float64) * scale[:, :, None]).reshape(-1, LATENT)
    return np.concatenate(raw, 1), np.concatenate([wide, tail.astype(np.float64)], 1)
