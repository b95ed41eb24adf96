"""Norms in one pass over the row, alone and fused with the residual add. Knows no device."""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings.launches import (
    f32,
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match
from lostwax.backends.predicates import axis_at_most, dtype, of_rows, rank
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.core import LayerNormOp, RmsNormOp
from lostwax.ir.region import Node, Region

_KERNELS = "lostwax.backends.gpu_kernels.norms"
_MAX_WIDTH = 16384  # one block holds a row in registers
_FLOATS = ("f32", "bf16")
Launches = tuple[Launch, ...]

_SUM = Node("core.add", {"a": "residual", "b": "delta"})
_NORMED = Node("core.rms_norm", {"x": "sum", "weight": "weight"})

ADD_RMS_NORM_REGION = Region(
    {
        "sum": _SUM,
        "residual_out": Node("core.cast", {"x": "sum"}),
        "normed": _NORMED,
    },
    outputs=("residual_out", "normed"),
)
LAST_NORM_REGION = Region({"sum": _SUM, "normed": _NORMED}, outputs=("normed",))


def _num_warps(width: int, knobs: Knobs) -> int:
    """By the row's width unless the knob says otherwise: 8 or more elements a thread."""
    return knobs["num_warps"] or max(1, min(8, next_power_of_two(width) // 512))


def _emit_add_rms_norm(match: Match, knobs: Knobs, name: str, keep_sum: bool) -> tuple[Launch, ...]:
    rows, width = match.shape("residual")
    residual, delta, normed = match.view("residual"), match.view("delta"), match.view("normed")
    residual_out = match.view("residual_out") if keep_sum else normed
    return (
        triton_launch(
            match,
            f"{_KERNELS}:add_rms_norm",
            {
                "residual": residual,
                "delta": delta,
                "weight": match.view("weight"),
                "residual_out": residual_out,
                "normed": normed,
                "real_rows": real_rows(match),
                "residual_stride": i32(residual.strides[0]),
                "delta_stride": i32(delta.strides[0]),
                "residual_out_stride": i32(residual_out.strides[0]),
                "normed_stride": i32(normed.strides[0]),
                "eps": f32(float(match.attr("normed", "eps"))),
            },
            {"WIDTH": width, "BLOCK": next_power_of_two(width), "KEEP_SUM": int(keep_sum)},
            grid=(rows, 1, 1),
            op=name,
            rows_of=("residual_stride", "delta_stride", "residual_out_stride", "normed_stride"),
            num_warps=_num_warps(width, knobs),
        ),
    )


def _emit_single(match: Match, knobs: Knobs, kernel: str, weights: tuple[str, ...]) -> Launches:
    rows, width = match.shape("x")
    x, normed = match.view("x"), match.view("op.out")
    return (
        triton_launch(
            match,
            f"{_KERNELS}:{kernel}",
            {
                "x": x,
                **{name: match.view(name) for name in weights},
                "normed": normed,
                "real_rows": real_rows(match),
                "x_stride": i32(x.strides[0]),
                "normed_stride": i32(normed.strides[0]),
                "eps": f32(float(match.attr("op", "eps"))),
            },
            {"WIDTH": width, "BLOCK": next_power_of_two(width)},
            grid=(rows, 1, 1),
            op=f"smxx_{kernel}",
            num_warps=_num_warps(width, knobs),
            rows_of=("x_stride", "normed_stride"),
        ),
    )


def _emit_rms_norm(match: Match, knobs: Knobs) -> Launches:
    return _emit_single(match, knobs, "rms_norm", ("weight",))


def _emit_layer_norm(match: Match, knobs: Knobs) -> Launches:
    return _emit_single(match, knobs, "layer_norm", ("weight", "bias"))


_WARPS = Knob("num_warps", (0, 1, 2, 4, 8, 16))
_ADD_WHEN = (
    dtype("residual", *_FLOATS)
    & dtype("delta", *_FLOATS)
    & dtype("sum", "f32")
    & dtype("weight", *_FLOATS)
    & dtype("normed", *_FLOATS)
    & rank("residual", 2)
    & axis_at_most("residual", 1, _MAX_WIDTH)
    & of_rows("residual")
)

ADD_RMS_NORM = Lowering(
    name="smxx_add_rms_norm",
    pattern=ADD_RMS_NORM_REGION,
    emit=lambda match, knobs: _emit_add_rms_norm(match, knobs, "smxx_add_rms_norm", True),
    when=_ADD_WHEN & dtype("residual_out", *_FLOATS),
    knobs=(_WARPS,),
    row_invariant=True,
)

LAST_RMS_NORM = Lowering(
    name="smxx_last_rms_norm",
    pattern=LAST_NORM_REGION,
    emit=lambda match, knobs: _emit_add_rms_norm(match, knobs, "smxx_last_rms_norm", False),
    when=_ADD_WHEN,
    knobs=(_WARPS,),
    row_invariant=True,
)

_SINGLE_WHEN = (
    dtype("x", *_FLOATS)
    & dtype("weight", *_FLOATS)
    & dtype("op.out", *_FLOATS)
    & rank("x", 2)
    & axis_at_most("x", 1, _MAX_WIDTH)
    & of_rows("x")
)

RMS_NORM = Lowering(
    name="smxx_rms_norm",
    pattern=Region.single(RmsNormOp),
    emit=_emit_rms_norm,
    when=_SINGLE_WHEN,
    knobs=(_WARPS,),
    row_invariant=True,
)

LAYER_NORM = Lowering(
    name="smxx_layer_norm",
    pattern=Region.single(LayerNormOp),
    emit=_emit_layer_norm,
    when=_SINGLE_WHEN & dtype("bias", *_FLOATS),
    knobs=(_WARPS,),
    row_invariant=True,
)
