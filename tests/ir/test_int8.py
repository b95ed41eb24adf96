"""int8 with scales, and caches whose parts lie apart: numbers written anew in plain Python."""

from __future__ import annotations

from fractions import Fraction

import msgspec
import numpy as np
import pytest
import torch

from lostwax.backends.portable.kernels import fp8
from lostwax.backends.runtime import torch_numbers
from lostwax.backends.runtime.load import by_page
from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.caches import CachePlane
from lostwax.ir.contract.scale_layout import BlockScale
from lostwax.ir.reference.cache_bytes import CacheBytes, empty_cache
from lostwax.ir.reference.dtype import NUMPY_DTYPES, round_to, widen
from lostwax.ir.reference.quant import quantise
from lostwax.ir.reference.weight_forms import bf16_above, requantise

ROWS = np.random.default_rng(0).standard_normal((5, 48)).astype(np.float32)
ROWS[1] *= 1000
ROWS[2] = 0
ROWS[3, 7] = -np.abs(ROWS[3]).max() * 2


def half_to_even(x: Fraction) -> int:
    """The nearest whole number."""
    low = x.numerator // x.denominator
    rest = x - low
    return low + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2 == 1))


@pytest.mark.parametrize("x", [0.5, 1.5, 2.5, -0.5, -2.5, 126.5, 127.4, 1e9, -128.0, float("nan")])
def test_a_number_becomes_the_nearest_of_255(x: float) -> None:
    want = 0 if np.isnan(x) else max(-127, min(127, half_to_even(Fraction(x))))
    assert round_to(np.array([x]), "si8").tolist() == [want]


def test_activations_have_a_scale_a_row_and_fill_its_range() -> None:
    made = quantise(ROWS, scale_fmt="fp32", dtype="si8", block=48)
    assert made.values.dtype == np.int8
    assert made.scales.shape == (5, 1)
    for row, values, (scale,) in zip(ROWS, made.values, made.scales, strict=True):
        amax = max(np.float32(1e-4), np.abs(row).max())
        assert scale == np.float32(amax / np.float32(127))
        want = [half_to_even(Fraction(float(np.float32(v / scale)))) for v in row]
        assert values.tolist() == want


def test_the_portable_kernel_rounds_to_the_same_bits() -> None:
    made = quantise(ROWS, scale_fmt="fp32", dtype="si8", block=48)
    values, scales = torch.empty((5, 48), dtype=torch.int8), torch.empty((5, 1))
    fp8.quantise(torch.from_numpy(ROWS), values, scales, scale_fmt="fp32", block=48)
    np.testing.assert_array_equal(values.numpy(), made.values)
    np.testing.assert_array_equal(scales.numpy(), made.scales)


def test_weights_have_scales_of_bf16s_bits_that_hold_the_largest() -> None:
    scale = BlockScale(rows=1, cols=48, dtype="f32")
    made = requantise(ROWS, "si8", scale)
    np.testing.assert_array_equal(
        made.scales, made.scales.astype(NUMPY_DTYPES["bf16"]).astype(np.float32)
    )
    assert (np.abs(ROWS) <= made.scales * 127).all()
    assert (made.scales[:2] * 127 <= np.abs(ROWS[:2]).max(1, keepdims=True) * 1.01).all()
    assert (np.abs(widen(made) - ROWS) <= made.scales / 2 * 1.001).all()
    values, scales = torch_numbers.requantise(torch.from_numpy(ROWS), torch.int8, scale)
    np.testing.assert_array_equal(values.numpy(), made.values)
    np.testing.assert_array_equal(scales.numpy(), made.scales)


@pytest.mark.parametrize("bits", [0x3F800000, 0x3F800001, 0x3F80FFFF, 0x3FFFFFFF, 0x00800001])
def test_a_scale_is_rounded_up_to_the_next_number_of_16_bits(bits: int) -> None:
    want = -(-bits // 0x10000) * 0x10000
    (found,) = bf16_above(np.array([bits], np.uint32).view(np.float32)).view(np.uint32)
    assert found == want
    on_torch = torch_numbers.bf16_above(torch.tensor([bits], dtype=torch.int32).view(torch.float32))
    assert on_torch.view(torch.int32).tolist() == [want]


def test_parts_that_lie_apart_are_each_together() -> None:
    """Two pages of three tokens of parts of 4 and 2: all of the first part, then of the second."""
    row, pages, tokens = (4, 2), 2, 3
    cache = empty_cache("bf16_apart", pages, tokens, row)
    assert isinstance(cache, CacheBytes)
    first = np.arange(8.0).reshape(2, 4)
    second = np.array([[100.0, 101.0], [102.0, 103.0]])
    made = cache.written([first, second], np.array([1, 5]))
    flat = made.data.reshape(-1).view(NUMPY_DTYPES["bf16"]).astype(float)
    assert flat[4:8].tolist() == [0, 1, 2, 3]
    assert flat[20:24].tolist() == [4, 5, 6, 7]
    assert flat[24 + 2 : 24 + 4].tolist() == [100, 101]
    assert flat[24 + 10 :].tolist() == [102, 103]
    assert np.count_nonzero(flat) == 11
    assert made.rows(np.array([5])).tolist() == [[4, 5, 6, 7, 102, 103]]
    again = made.of_tokens(made.tokens())
    np.testing.assert_array_equal(again.data, made.data)
    np.testing.assert_array_equal(cache.data, 0)


def test_their_bytes_are_those_of_rows_side_by_side() -> None:
    form = LAYOUTS["bf16_apart"]
    assert form.element is None
    assert form.part_bytes((512, 64)) == (1024, 128)
    assert form.row_bytes((512, 64)) == LAYOUTS["bf16"].row_bytes((512, 64)) == 1152


def test_a_scale_for_a_row_of_the_widest_weight_is_read_back() -> None:
    """Of the dense layers' down projection, 18,432 columns; the bound is a bound still."""
    scale = BlockScale(rows=1, cols=18432, dtype="f32")
    assert msgspec.json.decode(msgspec.json.encode(scale), type=BlockScale) == scale
    with pytest.raises(msgspec.ValidationError, match="<= 65536"):
        msgspec.convert({"type": "block", "rows": 1, "cols": 65537, "dtype": "f32"}, BlockScale)


def test_a_page_of_a_plane_whose_parts_lie_apart_is_a_row_of_each_piece() -> None:
    """What moves pages to host memory and back copies such rows."""
    plane = CachePlane(
        name="latent", layers=1, layout="bf16_apart", row=(4, 2), page_tokens=3, page_bytes=36
    )
    cache = CacheBytes.zeros("bf16_apart", 2, 3, (4, 2))
    held = cache.written([np.full((1, 4), 1.0), np.full((1, 2), 2.0)], np.array([4]))
    memory = torch.from_numpy(held.data.reshape(-1).copy())
    pieces = by_page([plane], {("latent", 0): memory}, 2)
    assert [piece.numel() for piece in pieces] == [2 * 24, 2 * 12]
    assert [bool(piece.view(2, -1)[0].any()) for piece in pieces] == [False, False]
    for piece in pieces:
        piece.view(2, -1)[0].copy_(piece.view(2, -1)[1])
    moved = cache.holding(memory.numpy())
    assert moved.rows(np.array([1])).tolist() == held.rows(np.array([4])).tolist()
    assert moved.rows(np.array([4])).tolist() == [[1, 1, 1, 1, 2, 2]]
