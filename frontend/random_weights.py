"""Random weights of a checkpoint, one tensor at a time, and their FP8 blocks. Writes no file."""

from __future__ import annotations

import hashlib
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from lostwax.ir.contract.scale_layout import FP8_BLOCK

Array = NDArray[Any]  # element types beyond numpy's own (bf16, fp8) have no static name

FP8_MAX = 448.0  # largest finite float8_e4m3fn
MATRIX_GAIN = 0.8  # std times sqrt(fan_in): 1.5 and more make the net chaotic


def random_tensor(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Values that depend on name, shape and seed only, not on format, order or the other tensors.

    Every parameter that could be forgotten differs from its neutral value: norms are 1 + 0.1 N,
    biases are not zero.
    """
    digest = hashlib.sha256(_source_name(name).encode()).digest()
    generator = np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
    normal = generator.standard_normal(shape, dtype=np.float32)
    if name.endswith("embed_tokens.weight"):
        return normal
    if name.endswith("k_norm.bias"):
        return np.float32(0.3) * normal
    if name.endswith("e_score_correction_bias"):
        return np.float32(0.1) * normal
    if len(shape) == 1:
        return np.float32(1) + np.float32(0.1) * normal
    return np.float32(MATRIX_GAIN / shape[1] ** 0.5) * normal


def _source_name(name: str) -> str:
    """MTP layers repeat the model's embedding and output projection."""
    if name.endswith(".embed_tokens.weight"):
        return "model.embed_tokens.weight"
    return "lm_head.weight" if name.endswith(".shared_head.head.weight") else name


def quantise_blocks(
    weight: NDArray[np.float32], *, power_of_two: bool
) -> tuple[Array, NDArray[np.float32]]:
    """FP8 values [N, K] and the scales that multiply them, one an FP8_BLOCK square."""
    rows, cols = weight.shape
    largest = np.maximum.reduceat(np.abs(weight), list(range(0, rows, FP8_BLOCK)), axis=0)
    largest = np.maximum.reduceat(largest, list(range(0, cols, FP8_BLOCK)), axis=1)
    scale = np.maximum(largest, 1e-4).astype(np.float32) / np.float32(FP8_MAX)  # never zero
    if power_of_two:
        scale = np.exp2(np.ceil(np.log2(scale)))
    scale = scale.astype(np.float32)
    spread = np.repeat(np.repeat(scale, FP8_BLOCK, axis=0), FP8_BLOCK, axis=1)[:rows, :cols]
    values = np.clip(weight / spread, -FP8_MAX, FP8_MAX)
    return values.astype(ml_dtypes.float8_e4m3fn), scale
