"""The loader's steps give what their numpy meaning gives, in bits, whatever the weight."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lostwax.backends.runtime import form_weight
from lostwax.backends.runtime.form_tensor import form
from lostwax.backends.runtime.form_weight import Read, SourceTensors, form_into
from lostwax.backends.runtime.host_weights import HostWeights
from lostwax.backends.runtime.tensors import TORCH_DTYPES
from lostwax.backends.runtime.torch_numbers import requantise
from lostwax.ir.contract.check_views import Inconsistent
from lostwax.ir.contract.check_weights import check_stored
from lostwax.ir.contract.ranks import ALONE, Rank
from lostwax.ir.contract.scale_layout import (
    FP8_BLOCKS,
    MX,
    BlockScale,
    ChannelScale,
    ScaleLayout,
    scale_shape,
)
from lostwax.ir.contract.weight_types import types_along
from lostwax.ir.contract.weights import (
    Cast,
    Concat,
    Dequantise,
    Pad,
    Reencode,
    Requantise,
    Select,
    Split,
    Stack,
    Step,
    StoredWeight,
    Tile,
    Transpose,
    WeightPart,
)
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Array, Scaled, Value, round_to
from lostwax.ir.reference.weight_forms import stored_weight

LAYOUTS: tuple[ScaleLayout, ...] = (
    FP8_BLOCKS,
    BlockScale(rows=16, cols=8, dtype="f32"),
    BlockScale(rows=4, cols=16, dtype="f8E8M0FNU"),
    MX,
    ChannelScale(dtype="f32"),
)


def _tensor(array: Array) -> torch.Tensor:
    """The same bits."""
    name = next(n for n, dtype in NUMPY_DTYPES.items() if dtype == array.dtype)
    raw = torch.from_numpy(np.ascontiguousarray(array).view(np.uint8).copy())
    return raw.reshape(-1).view(TORCH_DTYPES[name]).reshape(array.shape)


def _values(rng: np.random.Generator, part: WeightPart) -> Value:
    """One source: every finite code where the values are codes, numbers of all sizes elsewhere."""
    if part.scale is None:
        wide = rng.standard_normal(part.shape) * 2.0 ** rng.integers(-30, 30, part.shape)
        return round_to(wide, part.dtype)
    codes = rng.integers(0, 254, part.shape).astype(np.uint8)
    codes[(codes & 0x7F) == 0x7F] = 0
    shape = scale_shape(part.scale, part.shape)
    if part.scale.dtype == "f32":
        scales = rng.uniform(1e-4, 2, shape).astype(np.float32)
    else:
        scales = round_to(2.0 ** rng.integers(-20, 20, shape), part.scale.dtype)
    rows, cols = part.scale.block(part.shape)
    return Scaled(codes.view(NUMPY_DTYPES[part.dtype]), scales, rows, cols)


def _read(value: Value) -> SourceTensors:
    if isinstance(value, Scaled):
        return SourceTensors(_tensor(value.values), _tensor(value.scales))
    return SourceTensors(_tensor(value))


def _planned(parts: Sequence[WeightPart], steps: tuple[Step, ...], ranks: int) -> StoredWeight:
    """The stored weight that the steps make; Inconsistent where they make none."""
    ends = [types_along(part, steps, ranks)[-1] for part in parts]
    shape = list(ends[0].shape)
    if steps and isinstance(steps[-1], Concat):
        shape[steps[-1].axis] = sum(e.shape[steps[-1].axis] for e in ends)
    made = StoredWeight(
        name="w", dtype=ends[0].dtype, shape=tuple(shape), parts=tuple(parts), steps=steps
    )
    check_stored(made, ranks)
    return made


@st.composite
def plans(draw: st.DrawFn) -> tuple[StoredWeight, Rank]:
    """A weight of one to three parts, each of one or several sources, and a rank."""
    scale = draw(st.sampled_from((None, *LAYOUTS)))
    dtype = draw(st.sampled_from(("bf16", "f32", "f16"))) if scale is None else "f8E4M3FN"
    rank = draw(st.sampled_from((ALONE, Rank(0, 2), Rank(1, 2))))
    count = draw(st.integers(1, 3))
    stacked = count > 1 or draw(st.booleans())
    rows = draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    cols = draw(st.integers(1, 80))
    steps: list[Step] = []
    wide = st.sampled_from(("bf16", "f32"))
    held_scaled = scale is not None and draw(st.booleans())
    if scale is None:
        steps += [Cast(draw(wide))] if draw(st.booleans()) else []
    elif not held_scaled:
        steps += [Dequantise(draw(wide))]
    elif draw(st.booleans()):
        steps += [Reencode()]
    if rank.count > 1 and draw(st.booleans()):
        axis = draw(st.sampled_from((-1, -2)))
        rows, cols = ([2 * n for n in rows], cols) if axis == -2 else (rows, 2 * cols)
        steps += [Split(axis)]
    if not held_scaled and dtype != "f16" and draw(st.booleans()):
        wanted = draw(st.sampled_from(LAYOUTS))
        steps += [Requantise(draw(st.sampled_from(("f8E4M3FN", "f8E4M3FNUZ"))), wanted)]
        held_scaled = True
    if held_scaled:
        steps += [Select(draw(st.sampled_from(("values", "scales"))))]
    steps += [Stack()] if stacked else []
    axes = 2 + stacked
    steps += [Transpose(tuple(draw(st.permutations(range(axes)))))] if draw(st.booleans()) else []
    tiles = draw(st.lists(st.integers(1, 9), min_size=2, max_size=2))
    if draw(st.booleans()):
        steps += [Pad((*(1,) * stacked, *tiles))]
        steps += [Tile(tuple(tiles))] if draw(st.booleans()) else []
    steps += [Concat(draw(st.integers(0, axes - 1)))] if len(rows) > 1 else []
    parts = [
        WeightPart(name=f"p{i}", dtype=dtype, shape=(n, cols), scale=scale, count=count)
        for i, n in enumerate(rows)
    ]
    return _planned(parts, tuple(steps), rank.count), rank


@st.composite
def fitting(draw: st.DrawFn) -> tuple[StoredWeight, Rank] | None:
    """Those of the plans whose steps fit."""
    try:
        return draw(plans())
    except Inconsistent:
        return None


def _sources(stored: StoredWeight, seed: int) -> list[list[Value]]:
    rng = np.random.default_rng(seed)
    return [[_values(rng, part) for _ in range(part.count)] for part in stored.parts]


def _readers(sources: Sequence[Sequence[Value]]) -> list[list[Read]]:
    return [[partial(_read, value) for value in part] for part in sources]


def _form_by_numpy(
    stored: StoredWeight, sources: Sequence[Sequence[Value]], rank: Rank = ALONE
) -> Array:
    """What a process without torch makes of the same sources."""

    def read(value: Value) -> SourceTensors:
        if isinstance(value, Scaled):
            return SourceTensors(value.values, value.scales)
        return SourceTensors(value)

    readers = [[partial(read, value) for value in part] for part in sources]
    maker = HostWeights()
    out = np.zeros(stored.shape, NUMPY_DTYPES[stored.dtype])
    form_into(out, stored, readers, rank, maker.write, maker.numbers)
    return out


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@settings(max_examples=400, deadline=None)
@given(fitting(), st.integers(0, 1 << 30), st.sampled_from((1, 64, 1 << 22)))
def test_steps_are_their_meaning_in_pieces_of_any_size(
    found: tuple[StoredWeight, Rank] | None, seed: int, piece: int
) -> None:
    if found is None:
        return
    stored, rank = found
    sources = _sources(stored, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(form_weight, "PIECE_ELEMENTS", piece)
        made = form(stored, _readers(sources), rank)
        by_numpy = _form_by_numpy(stored, sources, rank)
    want = stored_weight(stored, sources, rank)
    assert by_numpy.tobytes() == want.tobytes()
    assert tuple(made.shape) == stored.shape == want.shape
    assert _bytes(made) == want.tobytes()


def test_every_step_is_among_the_plans_that_are_drawn() -> None:
    kinds: set[type[Any]] = set()

    @settings(max_examples=300, deadline=None, database=None, derandomize=True)
    @given(fitting())
    def collect(found: tuple[StoredWeight, Rank] | None) -> None:
        if found is not None:
            kinds.update(map(type, found[0].steps))

    collect()
    assert kinds == set(Step.__args__)


def _one(dtype: str = "bf16", shape: tuple[int, ...] = (4, 6)) -> StoredWeight:
    part = WeightPart(name="p", dtype="bf16", shape=(4, 6))
    return StoredWeight(name="w", dtype=dtype, shape=shape, parts=(part,))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(4, 6), r"'p' are torch.float32 \[4, 6\], planned bf16 \[4, 6\]"),
        (torch.zeros(6, 4, dtype=torch.bfloat16), r"planned bf16 \[4, 6\]"),
    ],
)
def test_a_source_of_another_dtype_or_shape_is_refused(tensor: torch.Tensor, message: str) -> None:
    with pytest.raises(Inconsistent, match=message):
        form(_one(), [[lambda: SourceTensors(tensor)]])


def test_nothing_is_cast_that_no_step_casts() -> None:
    with pytest.raises(Inconsistent, match=r"its steps make torch.bfloat16, planned torch.float32"):
        form(_one("f32"), [[lambda: SourceTensors(torch.zeros(4, 6, dtype=torch.bfloat16))]])


def test_scales_that_are_missing_are_named() -> None:
    part = WeightPart(name="p", dtype="f8E4M3FN", shape=(4, 6), scale=FP8_BLOCKS)
    stored = StoredWeight(
        name="w", dtype="f32", shape=(4, 6), parts=(part,), steps=(Dequantise("f32"),)
    )
    codes = torch.zeros(4, 6).to(torch.float8_e4m3fn)
    with pytest.raises(Inconsistent, match="'p' has no scales"):
        form(stored, [[lambda: SourceTensors(codes)]])


@pytest.mark.parametrize("rows", range(1, 25))
@pytest.mark.parametrize("rank", [Rank(0, 2), Rank(1, 2)])
def test_a_share_that_begins_within_a_piece_has_its_own_scales(
    monkeypatch: pytest.MonkeyPatch, rows: int, rank: Rank
) -> None:
    """24 rows in blocks of 4, 12 a rank, in bands of any height."""
    scale = BlockScale(rows=4, cols=8, dtype="f32")
    part = WeightPart(name="p", dtype="f8E4M3FN", shape=(24, 8), scale=scale)
    stored = _planned([part], (Split(-2), Dequantise("f32")), 2)
    sources = _sources(stored, rows)
    monkeypatch.setattr(form_weight, "PIECE_ELEMENTS", 8 * rows)
    want = stored_weight(stored, sources, rank)
    assert _bytes(form(stored, _readers(sources), rank)) == want.tobytes()
    assert _form_by_numpy(stored, sources, rank).tobytes() == want.tobytes()


def test_a_source_too_few_is_refused() -> None:
    part = WeightPart(name="w", dtype="f32", shape=(2, 2), count=2)
    stored = StoredWeight(name="w", dtype="f32", shape=(2, 2, 2), parts=(part,), steps=(Stack(),))

    def read() -> SourceTensors:
        return SourceTensors(torch.ones(2, 2))

    assert form(stored, [[read, read]]).sum() == 8
    with pytest.raises(Inconsistent, match=r"1 sources of 'w', planned 2"):
        form(stored, [[read]])


def test_a_block_of_zeros_stays_zeros() -> None:
    """Its scale is the least there is: nothing is divided by nothing."""
    wide = torch.zeros(128, 256)
    wide[:, 128:] = 3.0
    for scale in (FP8_BLOCKS, MX):
        values, scales = requantise(wide, torch.float8_e4m3fn, scale)
        assert not values.float()[:, :128].any()
        assert bool((scales.float() > 0).all())
        assert torch.isfinite(scales.float()).all()
