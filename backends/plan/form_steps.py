"""The steps from a weight as the module holds it to a form that is wanted of it."""

from __future__ import annotations

from collections.abc import Mapping

from lostwax.backends.plan.want import Want
from lostwax.backends.plan.weight_type import WeightType
from lostwax.ir.contract.check_views import Inconsistent
from lostwax.ir.contract.weight_types import FormType, types_along
from lostwax.ir.contract.weights import (
    Dequantise,
    Pad,
    Requantise,
    Select,
    Step,
    Tile,
    Transpose,
)


def quantised_steps(kind: WeightType, want: Want) -> tuple[Step, ...]:
    """Of values as the module holds them, to the format that is wanted of them."""
    if want.quantised is None:
        return ()
    plain = () if kind.scale is None else (Dequantise("f32"),)
    return (*plain, Requantise(want.quantised.dtype, want.quantised.scale))


def tensor_steps(kind: WeightType, want: Want, scale: bool) -> tuple[Step, ...]:
    """The values or the scales of what has both."""
    if want.quantised is None and kind.scale is None:
        return ()
    return (Select("scales" if scale else "values"),)


def layout_steps(kind: WeightType, want: Want, scale: bool) -> tuple[Step, ...]:
    """Where each number of a stacked part lies."""
    steps: list[Step] = []
    if want.perm:
        steps.append(Transpose(want.perm))
    pad = _scale_pad(kind, want) if scale else want.pad
    if pad:
        steps.append(Pad(pad))
    if want.tile and not scale:
        steps.append(Tile(want.tile))
    return tuple(steps)


def _blocks(kind: WeightType, want: Want) -> tuple[int, ...]:
    """How many values of each stored axis lie under one scale; 1 where there are no scales."""
    scale = want.quantised.scale if want.quantised else kind.scale
    axes = len(kind.shape)
    if scale is None or axes < 2:
        return (1,) * axes
    logical = (*(1,) * (axes - 2), *scale.block(kind.shape))
    return tuple(logical[i] for i in want.perm) if want.perm else logical


def _scale_pad(kind: WeightType, want: Want) -> tuple[int, ...]:
    return tuple(
        max(multiple // block, 1)
        for multiple, block in zip(want.pad, _blocks(kind, want), strict=False)
    )


def joined_axis(want: Want) -> int:
    """The axis of storage along which parts lie behind one another."""
    return want.perm.index(want.axis) if want.perm else want.axis


def form_refusal(types: Mapping[str, WeightType], want: Want) -> str | None:
    """Why weights cannot be stored as the want says, None if they can."""
    first = types[want.parts[0]]
    for part in want.parts[1:]:
        other = types[part]
        if (other.dtype, other.scale) != (first.dtype, first.scale):
            return f"{part} is held as {other.dtype}, {want.parts[0]} as {first.dtype}"
        if (other.stored, other.split) != (first.stored, first.split):  # the steps are one list
            return (
                f"{part} is stored as {other.stored} and split along {other.split},"
                f" {want.parts[0]} as {first.stored} along {first.split}"
            )
    for part in want.parts:
        refusal = _part_refusal(part, types[part], want)
        if refusal is not None:
            return refusal
    axis = joined_axis(want)
    for part in want.parts[:-1]:
        extent = types[part].shape[want.axis]
        padded = -(-extent // want.pad[axis]) * want.pad[axis] if want.pad else extent
        if padded % _blocks(types[part], want)[axis]:
            return f"{part} ends inside a scale block, so nothing can lie behind it"
    return None


def _part_refusal(part: str, kind: WeightType, want: Want) -> str | None:
    axes = len(kind.shape)
    if want.perm and sorted(want.perm) != list(range(axes)):
        return f"{want.perm} permutes no {axes} axes, which {part} has"
    for multiple, block in zip(want.pad, _blocks(kind, want), strict=False):
        if multiple % block and block % multiple:
            return f"padding {part} to multiples of {multiple} cuts its scale blocks of {block}"
    try:
        for of_scales in (False, True) if want.quantised or kind.scale else (False,):
            laid_out(part, kind, want, of_scales)
    except Inconsistent as error:
        return f"{part} cannot lie as {want.stored_name}: {error}"
    return None


def laid_out(part: str, kind: WeightType, want: Want, of_scales: bool) -> FormType:
    """What one part, or its scales, is where it lies in a stored tensor. Raises Inconsistent."""
    steps = (*quantised_steps(kind, want), *tensor_steps(kind, want, of_scales))
    return types_along(kind.held(part), (*steps, *layout_steps(kind, want, of_scales)), 1)[-1]
