"""Arithmetic of strided views, and which ops are views of their operand. Allocates nothing."""

from __future__ import annotations

from math import prod

from xdsl.ir import Operation, SSAValue

from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.program import Bucket, View
from lostwax.ir.contract.step import STEP_INPUTS, input_shape
from lostwax.ir.contract.view import Space
from lostwax.ir.dialects.core import CastOp, ReshapeOp, SliceOp
from lostwax.ir.types import CacheType, TensorType


def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements."""
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def dense(space: Space, name: str, dtype: str, shape: tuple[int, ...], offset: int = 0) -> View:
    """A row-major view."""
    return View(
        space=space, name=name, dtype=dtype, shape=shape, strides=strides_of(shape), offset=offset
    )


def input_view(name: str, bucket: Bucket) -> View:
    """A step input under a bucket."""
    return dense("input", name, STEP_INPUTS[name].dtype, input_shape(name, bucket))


def cache_view(kind: CacheType, name: str) -> View:
    """One layer's pages: [pages, page_tokens, row] of a plain layout's elements; bytes of a scaled
    one, [pages, page_tokens, row_bytes] or, if paged, [pages, page_bytes].
    """
    form, tokens = kind.form, kind.page_tokens.data
    if form.element is not None:
        return dense("plane", name, form.element, (-1, tokens, sum(kind.row)))
    row_bytes = form.row_bytes(kind.row)
    shape = (-1, tokens * row_bytes) if form.is_paged else (-1, tokens, row_bytes)
    return dense("plane", name, "u8", shape)


def scale_shape(kind: TensorType, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the scales of a scaled value of this concrete shape."""
    scale = kind.block_scale
    if scale is None:
        raise ValueError(f"a value of type {kind} has no scales")
    *batch, rows, cols = shape
    return (*batch, -(-rows // scale.rows.data), -(-cols // scale.cols.data))


def aliased_operand(op: Operation) -> SSAValue | None:
    """The operand whose memory the op's result shares, None if the op computes.

    Reshapes, slices and casts to the same type move nothing on any target.
    """
    if isinstance(op, ReshapeOp | SliceOp):
        return op.x
    if isinstance(op, CastOp) and op.x.type == op.out.type:
        return op.x
    return None


def slice_view(view: View, axis: int, start: int, stop: int) -> View:
    """Elements start..stop-1 of one axis."""
    step = view.strides[axis] * DTYPE_BYTES[view.dtype]
    shape = (*view.shape[:axis], stop - start, *view.shape[axis + 1 :])
    return View(
        space=view.space,
        name=view.name,
        dtype=view.dtype,
        shape=shape,
        strides=view.strides,
        offset=view.offset + start * step,
    )


def reshape_view(view: View, shape: tuple[int, ...]) -> View:
    """The same elements as `shape`; ValueError where strides do not allow it without a copy."""
    if prod(view.shape) != prod(shape):
        raise ValueError(f"{view.shape} and {shape} hold different numbers of elements")
    runs: list[tuple[int, int]] = []  # extents and strides, axes that lie behind one another merged
    for extent, stride in zip(view.shape, view.strides, strict=True):
        if extent == 1:
            continue
        if runs and runs[-1][1] == extent * stride:
            runs[-1] = (runs[-1][0] * extent, stride)
        else:
            runs.append((extent, stride))
    strides: list[int] = []
    i = 0
    for position, size in enumerate(shape):
        if size == 1:
            strides.append(prod(shape[position + 1 :]))
            continue
        extent, stride = runs[i]
        if extent % size:
            raise ValueError(
                f"a view of shape {view.shape} and strides {view.strides} cannot be reshaped to"
                f" {shape}"
            )
        rest = extent // size
        strides.append(stride * rest)
        if rest == 1:
            i += 1
        else:
            runs[i] = (rest, stride)
    return View(
        space=view.space,
        name=view.name,
        dtype=view.dtype,
        shape=shape,
        strides=tuple(strides),
        offset=view.offset,
    )


def alias_view(op: Operation, base: View, shape: tuple[int, ...]) -> View:
    """The view of a view op's result, from its operand's."""
    if isinstance(op, SliceOp):
        return slice_view(base, op.axis.value.data, op.start.value.data, op.stop.value.data)
    return base if isinstance(op, CastOp) else reshape_view(base, shape)


def zeroed_view(num_bytes: int) -> View | None:
    """So many bytes of the zeroed workspace that all lowerings share; None for none."""
    return dense("zeroed", "", "u8", (num_bytes,)) if num_bytes else None
