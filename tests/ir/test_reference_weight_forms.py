"""The numpy meaning of weight form steps."""

from typing import Any

import numpy as np
import pytest
import torch

from lostwax.backends.runtime import load_weights
from lostwax.ir.contract.weights import Step, StoredWeight
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Scaled, round_to, widen
from lostwax.ir.reference.weight_forms import apply_steps, reencode, stored_weight


def scaled(rows: int, cols: int, seed: int) -> Scaled:
    rng = np.random.default_rng(seed)
    values = round_to(rng.standard_normal((rows, cols)) * 50, "f8E4M3FN")
    shape = (-(-rows // 128), -(-cols // 128))
    return Scaled(values, rng.uniform(0.5, 2, shape).astype(np.float32), 128, 128)


def test_dequantise_concat_transpose_in_order():
    a, b = scaled(256, 64, 0), scaled(72, 64, 1)
    steps = (
        Step(kind="dequantise", dtype="f32"),
        Step(kind="concat", axis=0),
        Step(kind="transpose", perm=(1, 0)),
    )
    got = apply_steps([[a], [b]], steps)
    assert isinstance(got, np.ndarray)
    assert got.dtype == np.float32
    want = np.concatenate([widen(a), widen(b)]).T
    np.testing.assert_array_equal(got, want.astype(np.float32))


def test_scaled_parts_concatenate_with_their_scales_when_blocks_are_full():
    a, b = scaled(256, 64, 0), scaled(72, 64, 1)
    got = apply_steps([[a], [b]], (Step(kind="concat", axis=0),))
    np.testing.assert_array_equal(widen(got), np.concatenate([widen(a), widen(b)]))
    with pytest.raises(ValueError, match="multiple of 128, got 72"):
        apply_steps([[b], [a]], (Step(kind="concat", axis=0),))


def test_experts_stack_and_transpose_with_their_scales():
    experts = [scaled(130, 64, s) for s in range(3)]
    steps = (Step(kind="stack"), Step(kind="transpose", perm=(0, 2, 1)))
    got = apply_steps([experts], steps)
    np.testing.assert_array_equal(widen(got), np.stack([widen(e).T for e in experts]))


def test_leftover_tensors_and_dropped_scales_are_named():
    x = np.zeros((2, 2), np.float32)
    with pytest.raises(ValueError, match="2 tensors are left"):
        apply_steps([[x, x]], ())
    with pytest.raises(ValueError, match="use `dequantise`"):
        apply_steps([[scaled(128, 128, 0)]], (Step(kind="cast", dtype="bf16"),))


def test_a_stored_weight_keeps_its_format_or_is_dequantised():
    experts = [scaled(130, 64, s) for s in range(3)]
    fields: dict[str, Any] = {"name": "w", "parts": ("w",), "steps": ()}
    kept = StoredWeight(dtype="f8E4M3FN", shape=(3, 130, 64), **fields)
    np.testing.assert_array_equal(
        stored_weight(kept, [experts]), np.stack([e.values for e in experts])
    )
    scales = StoredWeight(dtype="f32", shape=(3, 2, 1), scale=True, **fields)
    np.testing.assert_array_equal(
        stored_weight(scales, [experts]), np.stack([e.scales for e in experts])
    )
    plain = StoredWeight(dtype="f32", shape=(3, 130, 64), **fields)
    np.testing.assert_allclose(
        stored_weight(plain, [experts]), np.stack([widen(e) for e in experts]), rtol=1e-7
    )


def test_reencoding_keeps_every_product_in_bits():
    codes = np.arange(256, dtype=np.uint8).reshape(2, 128)
    fn = codes.view(NUMPY_DTYPES["f8E4M3FN"])
    given = Scaled(fn, np.array([[0.75]], np.float32), 128, 128)
    made = reencode(given)
    assert made.values.dtype == NUMPY_DTYPES["f8E4M3FNUZ"]
    np.testing.assert_array_equal(widen(made), widen(given))  # NaN stays NaN
    assert made.values.view(np.uint8)[1, 0] == 0, "-0 is the code of NaN there"
    tensor = torch.from_numpy(codes).view(torch.float8_e4m3fn)
    loaded = load_weights.reencode(tensor).view(torch.uint8).numpy()
    assert loaded.tobytes() == made.values.tobytes()


def test_only_scaled_e4m3fn_is_reencoded():
    with pytest.raises(ValueError, match="needs scaled e4m3fn values"):
        reencode(np.zeros((2, 2), np.float32))
