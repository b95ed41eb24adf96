"""Buffers that live together never share bytes, and views address what torch addresses."""

from __future__ import annotations

from math import prod

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lostwax.backends.plan.arena import ALIGN, Buffer, align, place
from lostwax.backends.plan.views import dense, reshape_view, slice_view
from lostwax.backends.runtime.tensors import tensor_of
from lostwax.ir.contract.program import View


def _buffer(num_bytes: int, born: int, lives: int) -> Buffer:
    return Buffer(num_bytes, born, born + lives)


BUFFERS = st.lists(
    st.builds(
        _buffer,
        st.integers(1, 5000),
        st.integers(0, 20),
        st.integers(0, 8),
    ),
    max_size=24,
)


@given(BUFFERS)
def test_no_two_live_buffers_overlap_and_all_lie_in_the_arena(buffers: list[Buffer]) -> None:
    offsets, total = place(buffers)
    spans = [(o, o + b.num_bytes, b) for o, b in zip(offsets, buffers, strict=True)]
    assert all(o % ALIGN == 0 and end <= total for o, end, _ in spans)
    for i, (start, end, one) in enumerate(spans):
        for other_start, other_end, other in spans[:i]:
            live_together = one.born <= other.dies and other.born <= one.dies
            assert not live_together or end <= other_start or other_end <= start


@given(BUFFERS)
def test_the_arena_is_no_larger_than_all_buffers_side_by_side(buffers: list[Buffer]) -> None:
    _, total = place(buffers)
    assert total <= sum(align(b.num_bytes) for b in buffers)


def test_a_buffer_that_died_gives_its_place_to_the_next() -> None:
    offsets, total = place([Buffer(512, 0, 1), Buffer(512, 2, 3)])
    assert offsets == [0, 0]
    assert total == 512


def _values(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.arange(prod(shape), dtype=torch.float32).view(shape)


def _read(base: torch.Tensor, view: View) -> torch.Tensor:
    return tensor_of(base.contiguous().view(-1).view(torch.uint8), view)


SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


@given(SHAPES, st.data())
def test_a_slice_is_torchs_slice_and_its_reshape_is_torchs_view(
    shape: tuple[int, ...], data: st.DataObject
) -> None:
    base = _values(shape)
    axis = data.draw(st.integers(0, len(shape) - 1))
    start = data.draw(st.integers(0, shape[axis] - 1))
    stop = data.draw(st.integers(start + 1, shape[axis]))
    view = slice_view(dense("arena", "", "f32", shape), axis, start, stop)
    expected = base.narrow(axis, start, stop - start)
    assert torch.equal(_read(base, view), expected)
    target = data.draw(st.sampled_from([view.shape, (1, *view.shape), (*view.shape, 1)]))
    assert torch.equal(_read(base, reshape_view(view, target)), expected.reshape(target))


@given(SHAPES, SHAPES)
@example((2, 2, 3, 2), (2, 2, 2, 3))
def test_a_reshape_is_torchs_view_or_refused(shape: tuple[int, ...], target: tuple[int, ...]):
    base, view = _values(shape), dense("arena", "", "f32", shape)
    if prod(shape) == prod(target):
        assert torch.equal(_read(base, reshape_view(view, target)), base.view(target))
    else:
        with pytest.raises(ValueError, match=r"cannot be reshaped|different numbers"):
            reshape_view(view, target)


def test_a_reshape_that_would_need_a_copy_is_refused() -> None:
    sliced = slice_view(dense("arena", "", "f32", (4, 6)), 1, 0, 3)
    assert reshape_view(sliced, (4, 3, 1)).strides[:2] == (6, 1)
    with pytest.raises(ValueError, match=r"strides \(6, 1\) cannot be reshaped to \(12,\)"):
        reshape_view(sliced, (12,))
