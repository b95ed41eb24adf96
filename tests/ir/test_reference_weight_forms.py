"""The numpy meaning of the steps of weight plans."""

import numpy as np
import pytest

from lostwax.ir.contract.ranks import Rank
from lostwax.ir.contract.scale_layout import MX, BlockScale, ChannelScale, ScaleLayout
from lostwax.ir.contract.weights import (
    Cast,
    Concat,
    Dequantise,
    Pad,
    Requantise,
    Select,
    Split,
    Stack,
    StoredWeight,
    Tile,
    Transpose,
    WeightPart,
)
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Scaled, round_to, widen
from lostwax.ir.reference.weight_forms import apply_steps, reencode, requantise, stored_weight

VALUES, SCALES = Select("values"), Select("scales")


def scaled(rows: int, cols: int, seed: int) -> Scaled:
    rng = np.random.default_rng(seed)
    values = round_to(rng.standard_normal((rows, cols)) * 50, "f8E4M3FN")
    shape = (-(-rows // 128), -(-cols // 128))
    return Scaled(values, rng.uniform(0.5, 2, shape).astype(np.float32), 128, 128)


def test_dequantise_concat_transpose_in_order():
    a, b = scaled(256, 64, 0), scaled(72, 64, 1)
    steps = (Dequantise("f32"), Transpose((1, 0)), Concat(1))
    got = apply_steps([[a], [b]], steps)
    assert isinstance(got, np.ndarray)
    assert got.dtype == np.float32
    want = np.concatenate([widen(a), widen(b)]).T
    np.testing.assert_array_equal(got, want.astype(np.float32))


def test_values_and_scales_stack_and_transpose_alike():
    experts = [scaled(130, 64, s) for s in range(3)]
    steps = (Stack(), Transpose((0, 2, 1)))
    values, scales = (apply_steps([experts], (one, *steps)) for one in (VALUES, SCALES))
    assert isinstance(values, np.ndarray)
    assert isinstance(scales, np.ndarray)
    np.testing.assert_array_equal(values, np.stack([e.values.T for e in experts]))
    np.testing.assert_array_equal(scales, np.stack([e.scales.T for e in experts]))


def test_leftover_tensors_and_dropped_scales_are_named():
    x = np.zeros((2, 2), np.float32)
    with pytest.raises(ValueError, match="2 tensors are left"):
        apply_steps([[x, x]], ())
    with pytest.raises(ValueError, match="`cast` step would drop scales; select first"):
        apply_steps([[scaled(128, 128, 0)]], (Cast("bf16"),))
    with pytest.raises(ValueError, match="`dequantise` step needs scaled values"):
        apply_steps([[x]], (Dequantise("bf16"),))


def test_what_is_not_as_planned_is_refused_never_cast():
    experts = [scaled(130, 64, s) for s in range(3)]
    parts = (WeightPart(name="w", dtype="f8E4M3FN", shape=(130, 64), count=3),)
    steps = (Dequantise("f32"), Stack())
    plain = StoredWeight(name="w", dtype="f32", shape=(3, 130, 64), parts=parts, steps=steps)
    np.testing.assert_allclose(
        stored_weight(plain, [experts]), np.stack([widen(e) for e in experts]), rtol=1e-7
    )
    other = StoredWeight(name="w", dtype="bf16", shape=(3, 130, 64), parts=parts, steps=steps)
    with pytest.raises(ValueError, match="came out as float32"):
        stored_weight(other, [experts])
    with pytest.raises(ValueError, match="values and scales together"):
        stored_weight(
            StoredWeight(name="w", dtype="f32", shape=(130, 64), parts=parts), [experts[:1]]
        )


def test_a_share_of_scaled_values_has_the_scales_of_its_blocks():
    whole = scaled(512, 256, 0)
    for axis, local in ((-2, 256), (-1, 128)):
        shares = [apply_steps([[whole]], (Split(axis),), Rank(i, 2)) for i in range(2)]
        assert [s.shape[axis] for s in shares] == [local, local]
        np.testing.assert_array_equal(
            np.concatenate([widen(s) for s in shares], axis), widen(whole)
        )
    inside = scaled(128, 64, 1)  # both shares lie in one block
    shares = [apply_steps([[inside]], (Split(-2),), Rank(i, 2)) for i in range(2)]
    np.testing.assert_array_equal(np.concatenate([widen(s) for s in shares]), widen(inside))


def test_padding_is_zero_and_tiles_lie_whole():
    x = np.arange(15, dtype=np.float32).reshape(3, 5) + 1
    padded = apply_steps([[x]], (Pad((2, 4)),))
    assert isinstance(padded, np.ndarray)
    assert padded.shape == (4, 8)
    assert padded.sum() == x.sum()
    tiled = apply_steps([[x]], (Pad((2, 4)), Tile((2, 4))))
    assert isinstance(tiled, np.ndarray)
    assert tiled.shape == (2, 2, 2, 4)
    np.testing.assert_array_equal(tiled[1, 0], padded[2:4, :4])


@pytest.mark.parametrize(
    "layout",
    [BlockScale(rows=128, cols=128, dtype="f32"), ChannelScale(dtype="f32"), MX],
    ids=["blocks", "channels", "mx"],
)
def test_requantised_values_are_near_and_the_largest_is_the_dtypes(layout: ScaleLayout):
    x = np.random.default_rng(0).standard_normal((130, 96)).astype(np.float32)
    made = requantise(x, "f8E4M3FN", layout)
    largest = np.abs(made.values.astype(np.float32)).max()
    assert largest == 448 if layout is not MX else largest > 224
    assert made.scales.dtype == NUMPY_DTYPES[layout.dtype]
    rows, cols = layout.block(x.shape)
    amax = np.abs(x[:rows, :cols]).max()
    error = np.abs(widen(made) - x)[:rows, :cols].max()
    assert 0 < error <= amax * 2**-4
    np.testing.assert_array_equal(widen(requantise(x * 0, "f8E4M3FN", layout)), x * 0)


def test_requantising_what_was_scaled_so_changes_no_number():
    given = requantise(widen(scaled(256, 128, 3)), "f8E4M3FN", ChannelScale(dtype="f32"))
    wide = apply_steps([[given]], (Dequantise("f32"),))
    again = apply_steps(
        [[given]], (Dequantise("f32"), Requantise("f8E4M3FN", ChannelScale(dtype="f32")))
    )
    assert isinstance(wide, np.ndarray)
    np.testing.assert_allclose(widen(again), wide, rtol=1e-6)


def test_reencoding_keeps_every_product_in_bits():
    codes = np.arange(256, dtype=np.uint8).reshape(2, 128)
    fn = codes.view(NUMPY_DTYPES["f8E4M3FN"])
    given = Scaled(fn, np.array([[0.75]], np.float32), 128, 128)
    made = reencode(given)
    assert made.values.dtype == NUMPY_DTYPES["f8E4M3FNUZ"]
    np.testing.assert_array_equal(widen(made), widen(given))  # NaN stays NaN
    assert made.values.view(np.uint8)[1, 0] == 0, "-0 is the code of NaN there"


def test_only_scaled_e4m3fn_is_reencoded():
    with pytest.raises(ValueError, match="needs scaled e4m3fn values"):
        reencode(np.zeros((2, 2), np.float32))
