"""The steps from how a checkpoint stores a weight to how a module holds it. Knows no lowering."""

from __future__ import annotations

from lostwax.ir.contract.scale_layout import ScaleLayout, StoredFormat
from lostwax.ir.contract.weights import (
    Cast,
    Dequantise,
    Reencode,
    Requantise,
    Select,
    Split,
    Stack,
    Step,
)


def held_steps(
    stored: StoredFormat, dtype: str, scale: ScaleLayout | None, split: int | None = None
) -> tuple[Step, ...]:
    """To values of `dtype`, scaled where `scale` says so; the rank's share of axis `split`.

    A share of scaled values is taken with their scales; of others when they are plain, since it may
    cut the checkpoint's blocks.
    """
    steps: list[Step] = []
    if stored.scale is None and dtype == "si8":
        assert scale is not None  # int8 is held with scales
        steps.append(Requantise(dtype, scale))
    elif stored.scale is None:
        if stored.dtype != dtype:
            steps.append(Cast(dtype))
    elif scale is None:
        steps.append(Dequantise(dtype))
    elif dtype == "si8":
        steps += [Dequantise("f32"), Requantise(dtype, scale)]
    elif stored.dtype != dtype:
        steps.append(Reencode())
    if split is not None:
        steps.append(Split(split))
    return tuple(steps)


def one_tensor(
    stored: StoredFormat, dtype: str, scale: ScaleLayout | None, of_scales: bool
) -> tuple[Step, ...]:
    """Of held values the values or the scales, in the dtype that the module has of them."""
    if scale is None:
        return ()
    if not of_scales:
        return (Select("values"),)
    kept = stored.scale if stored.dtype == dtype else None
    made = "f32" if kept is None else kept.dtype  # made anew they are f32
    return (Select("scales"), *(() if made == scale.dtype else (Cast(scale.dtype),)))


def stacked(stored: StoredFormat) -> tuple[Step, ...]:
    """The sources joined, where the checkpoint has a tensor an entry."""
    return (Stack(),) if stored.stacked else ()
