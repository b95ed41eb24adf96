"""What each step of a weight plan takes and gives: dtype, shape and scales. Knows no numbers.

The checks of an artifact and the loader walk these types, so that a plan whose steps do not fit is
refused before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import msgspec

from lostwax.ir.contract.bounds import MAX_BYTES, MAX_DIMS
from lostwax.ir.contract.check_views import dtype_bytes, require
from lostwax.ir.contract.scale_layout import (
    BlockScale,
    ChannelScale,
    ScaleLayout,
    TwoLevelScale,
    scale_shape,
)
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

WIDE = ("f32", "bf16", "f16")
"""What values are cast and dequantised to, and requantised from."""
FP8 = ("f8E4M3FN", "f8E4M3FNUZ")
SCALED = (*FP8, "si8")
"""What has scales."""
EXPONENTS = "f8E8M0FNU"
SCALES = ("f32", EXPONENTS)

MOST_ON_THE_WAY = 8
"""Times what a weight is made of, or what is made of it: fp8 in f32 takes four."""
LITTLE_BYTES = 1 << 20
"""What a weight may take on its way however small it is: padding and whole blocks."""


class FormType(msgspec.Struct, frozen=True, kw_only=True):
    """A weight on its way: `stack_axis` is where `stack` has put the axis of a part's sources."""

    dtype: str
    shape: tuple[int, ...]
    scale: ScaleLayout | None = None
    stack_axis: int | None = None


def part_type(part: WeightPart) -> FormType:
    """What one source of a part is. Raises Inconsistent."""
    dtype_bytes(part.dtype, f"part {part.name!r}")
    if part.scale is not None:
        _check_scaled(part.dtype, part.shape, part.scale)
    return FormType(dtype=part.dtype, shape=part.shape, scale=part.scale)


def types_along(part: WeightPart, steps: Sequence[Step], ranks: int) -> tuple[FormType, ...]:
    """What a part is before each step but `concat`, and after the last. Raises Inconsistent."""
    types = [part_type(part)]
    for step in steps:
        if not isinstance(step, Concat):
            types.append(_after(step, types[-1], part.count, ranks))
            size = prod(types[-1].shape) * dtype_bytes(types[-1].dtype, "it")
            require(size <= MAX_BYTES, f"{_name(step)} makes {size} bytes of it")
            require(len(types[-1].shape) <= MAX_DIMS, f"{_name(step)} makes too many axes of it")
    stacked = Stack() in steps
    require(stacked or part.count == 1, f"{part.count} tensors of {part.name!r} are left unstacked")
    return tuple(types)


def check_form(stored: StoredWeight, ranks: int) -> None:
    """Raise Inconsistent unless the steps make of the parts what the weight says it is."""
    require(bool(stored.parts), "it has no part")
    along = [types_along(part, stored.steps, ranks) for part in stored.parts]
    ends = [types[-1] for types in along]
    taken = zip(stored.parts, along, strict=True)
    kept = max(part.count * _bytes(types[0]) for part, types in taken)
    most = max(_bytes(each) for types in along for each in types)
    bound = MOST_ON_THE_WAY * max(kept, sum(map(_bytes, ends))) + LITTLE_BYTES
    require(most <= bound, f"its steps take {most} bytes on the way, at most {bound} are sensible")
    first, shape = ends[0], ends[0].shape
    require(all(e.scale is None for e in ends), "values and scales are left together: select one")
    joins = [i for i, step in enumerate(stored.steps) if isinstance(step, Concat)]
    last = stored.steps[-1] if stored.steps else None
    if isinstance(last, Concat):
        require(len(joins) == 1, "it is joined twice")
        axis, axes = last.axis, len(shape)
        require(-axes <= axis < axes, f"it is joined along axis {axis} of {axes}")
        axis %= axes
        for end, part in zip(ends, stored.parts, strict=True):
            others = [n for i, n in enumerate(end.shape) if i != axis]
            fits = end.dtype == first.dtype and len(end.shape) == axes
            fits = fits and others == [n for i, n in enumerate(shape) if i != axis]
            require(fits, f"{_said(end)} of {part.name!r} cannot lie behind {_said(first)}")
        shape = (*shape[:axis], sum(e.shape[axis] for e in ends), *shape[axis + 1 :])
    else:
        require(not joins, "concat is not its last step")
        require(len(ends) == 1, f"{len(ends)} parts are left apart: join them")
    made = first.dtype, shape
    require(
        made == (stored.dtype, stored.shape),
        f"its steps make {first.dtype} {list(shape)}, planned are {stored.dtype}"
        f" {list(stored.shape)}",
    )


def _bytes(form: FormType) -> int:
    return prod(form.shape) * dtype_bytes(form.dtype, "it")


def _name(step: Step) -> str:
    return f"step {type(step).__name__.lower()!r}"


def _said(given: FormType) -> str:
    scaled = "" if given.scale is None else f" {given.scale}"
    return f"{given.dtype} {list(given.shape)}{scaled}"


def _check_scaled(dtype: str, shape: tuple[int, ...], scale: ScaleLayout) -> None:
    require(dtype in SCALED, f"{dtype} has no scales, {' and '.join(SCALED)} have")
    require(len(shape) >= 2, f"scales need two axes, it has {len(shape)}")
    require(
        not isinstance(scale, TwoLevelScale),
        "nothing reads scales of two levels; dequantise the checkpoint",
    )
    require(scale.dtype in SCALES, f"scales are {' or '.join(SCALES)}, not {scale.dtype!r}")


def _after(step: Step, given: FormType, count: int, ranks: int) -> FormType:
    takes_scaled = isinstance(step, Select | Dequantise | Reencode)
    if not isinstance(step, Split):
        require(
            (given.scale is not None) is takes_scaled,
            f"{_name(step)} takes {'scaled' if takes_scaled else 'plain'} numbers, not"
            f" {_said(given)}" + ("" if takes_scaled else ": select one, or dequantise"),
        )
    match step:
        case Select():
            return _selected(step, given)
        case Split():
            return _split(step, given, ranks)
        case Cast():
            source = given.dtype in WIDE or (given.dtype, step.dtype) == (EXPONENTS, "f32")
            _require_wide(step, source, given)
            return msgspec.structs.replace(given, dtype=step.dtype)
        case Dequantise():
            _require_wide(step, True, given)
            return msgspec.structs.replace(given, dtype=step.dtype, scale=None)
        case Requantise():
            require(given.dtype in WIDE, f"{_name(step)} takes {WIDE}, not {_said(given)}")
            _check_scaled(step.dtype, given.shape, step.scale)
            _require_unstacked(step, given, range(len(given.shape) - 2, len(given.shape)))
            return msgspec.structs.replace(given, dtype=step.dtype, scale=step.scale)
        case Reencode():
            assert isinstance(given.scale, BlockScale | ChannelScale)  # as part_type has checked
            require(given.dtype == FP8[0], f"{_name(step)} takes {FP8[0]}, not {_said(given)}")
            doubled = msgspec.structs.replace(given.scale, dtype="f32")
            return msgspec.structs.replace(given, dtype=FP8[1], scale=doubled)
        case Stack():
            require(given.stack_axis is None, "it is stacked twice")
            shape = (count, *given.shape)
            return msgspec.structs.replace(given, shape=shape, stack_axis=0)
        case _:
            return _laid_out(step, given)


def _laid_out(step: Transpose | Pad | Tile | Concat, given: FormType) -> FormType:
    """After a step that moves numbers and changes none."""
    shape, axes, stack_axis = given.shape, len(given.shape), given.stack_axis
    match step:
        case Transpose(perm):
            permutes = sorted(perm) == list(range(axes))
            require(permutes, f"{_name(step)} by {perm} permutes no {axes} axes")
            shape = tuple(shape[i] for i in perm)
            stack_axis = None if stack_axis is None else perm.index(stack_axis)
        case Pad(multiples):
            wanted = f"{_name(step)} to {list(multiples)} of {list(shape)}"
            require(len(multiples) == axes, f"{wanted}: a number for each axis is wanted")
            _require_unstacked(step, given, [i for i in range(axes) if multiples[i] > 1])
            shape = tuple(-(-n // m) * m for n, m in zip(shape, multiples, strict=True))
        case Tile(tile):
            first = axes - len(tile)
            inner = shape[first:]
            fits = 0 < len(tile) <= axes and all(
                n % t == 0 for n, t in zip(inner, tile, strict=True)
            )
            require(fits, f"{_name(step)}: tiles of {list(tile)} cut {list(shape)}: pad it first")
            _require_unstacked(step, given, range(first, axes))
            outer = tuple(n // t for n, t in zip(inner, tile, strict=True))
            shape = (*shape[:first], *outer, *tile)
        case Concat():  # of parts, not of one
            return given
    return msgspec.structs.replace(given, shape=shape, stack_axis=stack_axis)


def _selected(step: Select, given: FormType) -> FormType:
    assert given.scale is not None
    if step.of == "values":
        return msgspec.structs.replace(given, scale=None)
    shape = scale_shape(given.scale, given.shape)
    return msgspec.structs.replace(given, dtype=given.scale.dtype, shape=shape, scale=None)


def _split(step: Split, given: FormType, ranks: int) -> FormType:
    axes = len(given.shape)
    require(-axes <= step.axis < 0, f"{_name(step)} along axis {step.axis} of {axes}")
    axis = axes + step.axis
    _require_unstacked(step, given, [axis])
    extent = given.shape[axis]
    require(
        extent > 0 and extent % ranks == 0,
        f"{_name(step)}: {extent} do not divide over {ranks} ranks",
    )
    share = extent // ranks
    if given.scale is not None and step.axis >= -2:
        block = given.scale.block(given.shape)[step.axis]
        whole = share % block == 0 or block % share == 0
        require(whole, f"{_name(step)}: {share} cut scale blocks of {block}: dequantise first")
    shape = (*given.shape[:axis], share, *given.shape[axis + 1 :])
    return msgspec.structs.replace(given, shape=shape)


def _require_wide(step: Cast | Dequantise, from_known: bool, given: FormType) -> None:
    fits = from_known and step.dtype in WIDE
    require(fits, f"{_name(step)} makes no {step.dtype!r} of {_said(given)}")


def _require_unstacked(step: Step, given: FormType, axes: Sequence[int]) -> None:
    """Sources are stacked piece by piece: no step may work across them."""
    apart = given.stack_axis is None or given.stack_axis not in axes
    require(apart, f"{_name(step)} works across the stacked axis {given.stack_axis}")
