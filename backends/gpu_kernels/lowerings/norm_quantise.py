"""RMS norms whose result is rounded to fp8, alone and with the residual add. Knows no device."""

from __future__ import annotations

from functools import partial

from lostwax.backends.gpu_kernels.lowerings.fp8_rows import (
    as_bytes,
    block_of,
    blocks_of_two,
    rounding,
    width_at_most,
)
from lostwax.backends.gpu_kernels.lowerings.launches import (
    f32,
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match
from lostwax.backends.predicates import dtype, of_rows, rank
from lostwax.ir.contract.program import Launch
from lostwax.ir.region import Node, Region

_KERNELS = "lostwax.backends.gpu_kernels.norm_quantise"
_MAX_WIDTH = 16384  # one program holds a row in registers
_FLOATS = ("f32", "bf16")

_SUM = Node("core.add", {"a": "residual", "b": "delta"})
_NORMED = Node("core.rms_norm", {"x": "sum", "weight": "weight"})
_QUANTISED = Node("quant.quantise", {"x": "normed"})
_ADD_NODES = {
    "sum": _SUM,
    "residual_out": Node("core.cast", {"x": "sum"}),
    "normed": _NORMED,
    "quantised": _QUANTISED,
}


def _num_warps(width: int, knobs: Knobs) -> int:
    """By the row's width unless the knob says otherwise: 16 elements a thread or more."""
    return knobs["num_warps"] or max(1, min(8, next_power_of_two(width) // 512))


def _constants(match: Match, width: int) -> dict[str, int]:
    block = block_of(match, "quantised")
    return {
        "WIDTH": width,
        "BLOCK": block,
        "GROUPS": next_power_of_two(-(-width // block)),
        "BF16": int(match.dtype("normed") == "bf16"),
        **rounding(match, "quantised", "quantised"),
    }


def _emit_norm(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    rows, width = match.shape("x")
    x, values, scales = match.view("x"), match.view("quantised"), match.view("quantised:scale")
    return (
        triton_launch(
            match,
            f"{_KERNELS}:rms_norm_quantise",
            {
                "x": x,
                "weight": match.view("weight"),
                "values": as_bytes(values),
                "scales": scales,
                "real_rows": real_rows(match),
                "x_stride": i32(x.strides[0]),
                "values_stride": i32(values.strides[0]),
                "scales_stride": i32(scales.strides[0]),
                "eps": f32(float(match.attr("normed", "eps"))),
            },
            _constants(match, width),
            grid=(rows, 1, 1),
            op="smxx_rms_norm_quantise",
            num_warps=_num_warps(width, knobs),
            rows_of=("x_stride", "values_stride", "scales_stride"),
        ),
    )


def _emit_add_norm(match: Match, knobs: Knobs, name: str, keep: bool) -> tuple[Launch, ...]:
    rows, width = match.shape("residual")
    residual, delta = match.view("residual"), match.view("delta")
    values, scales = match.view("quantised"), match.view("quantised:scale")
    residual_out = match.view("residual_out")
    normed = match.view("normed") if keep else residual_out
    strides = {
        "residual": residual,
        "delta": delta,
        "residual_out": residual_out,
        "normed": normed,
        "values": values,
        "scales": scales,
    }
    return (
        triton_launch(
            match,
            f"{_KERNELS}:add_rms_norm_quantise",
            {
                "residual": residual,
                "delta": delta,
                "weight": match.view("weight"),
                "residual_out": residual_out,
                "normed": normed,
                "values": as_bytes(values),
                "scales": scales,
                "real_rows": real_rows(match),
                **{f"{n}_stride": i32(view.strides[0]) for n, view in strides.items()},
                "eps": f32(float(match.attr("normed", "eps"))),
            },
            {
                **_constants(match, width),
                "KEEP_NORMED": int(keep),
                "BF16_SUM": int(match.dtype("residual_out") == "bf16"),
            },
            grid=(rows, 1, 1),
            op=name,
            num_warps=_num_warps(width, knobs),
            rows_of=tuple(f"{n}_stride" for n in strides),
        ),
    )


_WARPS = Knob("num_warps", (0, 1, 2, 4, 8, 16))
_NORM_WHEN = dtype("weight", *_FLOATS) & dtype("normed", *_FLOATS) & blocks_of_two("quantised")
_ADD_WHEN = (
    dtype("residual", *_FLOATS)
    & dtype("delta", *_FLOATS)
    & dtype("sum", "f32")
    & dtype("residual_out", *_FLOATS)
    & _NORM_WHEN
    & rank("residual", 2)
    & width_at_most("residual", _MAX_WIDTH)
    & of_rows("residual")
)

RMS_NORM_QUANTISE = Lowering(
    name="smxx_rms_norm_quantise",
    pattern=Region(
        {
            "normed": Node("core.rms_norm", {"x": "x", "weight": "weight"}),
            "quantised": _QUANTISED,
        },
        outputs=("quantised",),
    ),
    emit=_emit_norm,
    when=dtype("x", *_FLOATS)
    & _NORM_WHEN
    & rank("x", 2)
    & width_at_most("x", _MAX_WIDTH)
    & of_rows("x"),
    knobs=(_WARPS,),
    row_invariant=True,
)


def _add_norm(name: str, outputs: tuple[str, ...]) -> Lowering:
    """The fused add; the normed rows are written where they leave the region."""
    emit = partial(_emit_add_norm, name=name, keep="normed" in outputs)
    return Lowering(
        name=name,
        pattern=Region(_ADD_NODES, outputs=outputs),
        emit=emit,
        when=_ADD_WHEN,
        knobs=(_WARPS,),
        row_invariant=True,
    )


ADD_RMS_NORM_QUANTISE = _add_norm("smxx_add_rms_norm_quantise", ("residual_out", "quantised"))
ADD_RMS_NORM_AND_QUANTISE = _add_norm(
    "smxx_add_rms_norm_and_quantise", ("residual_out", "normed", "quantised")
)
