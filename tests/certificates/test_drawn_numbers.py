"""Drawn numbers are the same in numpy and on a device, whole or where they are asked for."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from lostwax.backends.runtime.draw import PERIOD, array_of, cache_of, kept
from lostwax.backends.runtime.draw_on_device import content_of, weight_content
from lostwax.backends.runtime.hash_numbers import bits24
from lostwax.ir.contract.check_probes import MAX_DRAWN_BITS, data_bytes
from lostwax.ir.contract.probe import (
    Data,
    Drawn,
    DrawnBits,
    DrawnCache,
    DrawnScores,
    DrawnSelection,
    GivenPart,
    GivenWeight,
)
from lostwax.ir.contract.weights import Concat, StoredWeight, Transpose, WeightPart
from lostwax.ir.reference.dtype import Array

WIDE = Drawn(shape=(700, 3001), dtype="f32", seed=77, low=-448.0, high=448.0, edges=True)
SCORES = DrawnScores(shape=(9, 2000), seed=5, visible=(0, 1, 5, 2000, 1999, 700, 700, 700, 700))
SELECTION = DrawnSelection(shape=(9, 64), seed=5, visible=(0, 1, 5, 2000, 64, 65, 63, 90, 90))
BITS = DrawnBits(shape=(9, 2000), seed=5)
MASKS = DrawnBits(shape=(300, 4040), seed=5)
"""More numbers than there are before they repeat."""
CACHE = DrawnCache(layout="fp8_656", row=(512, 64), page_tokens=64, pages=100, seed=3)


def _on_device(data: Data) -> bytes:
    buffer = torch.full((data_bytes(data),), 0xFF, dtype=torch.uint8)
    content_of(data, buffer.numel()).put(buffer)
    return buffer.numpy().tobytes()


def test_the_hash_is_splitmix64() -> None:
    """First outputs from state 0, as published with the generator."""
    first = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    found = bits24(0, np.arange(3))
    assert [int(x) for x in found] == [x >> 40 for x in first]
    assert bits24(0, torch.arange(3)).tolist() == found.tolist()


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16", "f8E4M3FN", "f8E4M3FNUZ"])
def test_numpy_and_torch_draw_the_same_bits(dtype: str) -> None:
    data = Drawn(shape=WIDE.shape, dtype=dtype, seed=9, low=-500.0, high=500.0, edges=True)
    assert PERIOD < 700 * 3001
    assert _on_device(data) == array_of(data).tobytes()


@pytest.mark.parametrize(
    "data", [SCORES, SELECTION, BITS, MASKS, CACHE, kept(np.eye(5, dtype="f4"), "f32")]
)
def test_the_other_kinds_are_the_same_too(data: Data) -> None:
    assert _on_device(data) == array_of(data).tobytes()


@pytest.mark.parametrize("data", [WIDE, SCORES, SELECTION, BITS, MASKS])
def test_any_part_is_that_of_the_whole(data: Data) -> None:
    whole, rows, columns = array_of(data), np.array([0, 1, 2, 3, 7]), np.array([0, 7, 63])
    for at in ((rows,), (None, columns), (rows, columns)):
        part: Array = whole
        for axis, wanted in enumerate(at):
            part = part if wanted is None else np.take(part, wanted, axis)
        assert np.array_equal(array_of(data, at), part, equal_nan=True)
    pages = np.array([0, 9, 99])
    assert np.array_equal(cache_of(CACHE, pages).data, array_of(CACHE)[pages])


def test_every_drawn_bit_is_one_about_half_of_the_time() -> None:
    bits = array_of(BITS)[..., None] >> np.arange(32) & 1
    assert np.abs(bits.mean(axis=(0, 1)) - 0.5).max() < 0.02


def test_masks_as_large_as_a_probe_may_hold_are_drawn_within_half_a_gigabyte() -> None:
    largest = DrawnBits(shape=(4096, MAX_DRAWN_BITS // 4096), seed=5)
    tracemalloc.start()
    try:
        drawn = array_of(largest)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 29
    assert len({row.tobytes() for row in drawn}) == 4096, "no two masks are alike"


def test_rows_of_the_second_of_two_axes_are_those_of_the_whole() -> None:
    stack = Drawn(shape=(5, 700, 301), dtype="f8E4M3FN", seed=7, low=-448.0, high=448.0)
    at = (np.array([1, 4]), np.array([3, 4, 699]))
    assert array_of(stack, at).tobytes() == array_of(stack)[np.ix_(*at)].tobytes()


def test_no_two_rows_of_a_weight_are_alike() -> None:
    rows = array_of(Drawn(shape=(2048, 7168), dtype="f8E4M3FN", seed=1, low=-448.0, high=448.0))
    assert len({row.tobytes() for row in rows}) == 2048


def test_selections_are_distinct_ascending_and_visible() -> None:
    for row, seen in zip(array_of(SELECTION), SELECTION.visible, strict=True):
        chosen = row[row >= 0]
        assert (np.diff(chosen) > 0).all()
        assert (chosen < seen).all()
        assert (row[chosen.size :] == -1).all()
        assert 0 < chosen.size <= min(seen, 64) or seen == 0


@pytest.mark.parametrize(
    ("array", "numbers"),
    [
        (np.pad(np.arange(165, dtype=np.int32).reshape(5, 33), ((0, 11), (0, 2527))), 6 * 34),
        (np.full((3, 4), 7, np.int32), 1),
        (np.arange(12, dtype=np.int32).reshape(3, 4), 12),
        (np.zeros((0, 3), np.int32), 0),
        (np.array([1, 2, 2, 2], np.int32), 2),
    ],
)
def test_what_is_alike_to_the_end_is_kept_once(array: Array, numbers: int) -> None:
    data = kept(array, "i32")
    assert len(data.data) == 4 * numbers
    assert np.array_equal(array_of(data), array)


def test_a_weight_is_formed_of_its_parts_as_the_loader_forms_it() -> None:
    gate = Drawn(shape=(128, 64), dtype="bf16", seed=1, low=-1.0, high=1.0)
    up = Drawn(shape=(64, 64), dtype="bf16", seed=2, low=-1.0, high=1.0)
    drawn = {"gate": gate, "up": up}
    stored = StoredWeight(
        name="w",
        dtype="bf16",
        shape=(64, 192),
        steps=(Transpose((1, 0)), Concat(1)),
        parts=tuple(WeightPart(name=n, dtype=d.dtype, shape=d.shape) for n, d in drawn.items()),
    )
    weight = GivenWeight(stored=stored, parts=tuple(GivenPart(values=d) for d in drawn.values()))
    content = weight_content(weight)
    buffer = torch.zeros(content.num_bytes, dtype=torch.uint8)
    content.put(buffer)
    want = np.concatenate([array_of(gate), array_of(up)]).T
    assert buffer.numpy().tobytes() == np.ascontiguousarray(want).tobytes()
