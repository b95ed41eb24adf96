"""The chosen experts of few rows as two launches. Knows no device."""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings.launches import (
    Carver,
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.gpu_kernels.lowerings.linear import vector_flops
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.experts import expert_bytes
from lostwax.backends.predicates import (
    dtype,
    encoded_for_target,
    of_rows,
    plain,
    weight_blocks,
)
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.dialects.moe import ExpertsOp
from lostwax.ir.region import Region

_KERNELS = "lostwax.backends.gpu_kernels"
_WIDENING = 30
"""Vector operations that widening, scaling and multiplying a weight takes: an estimate, by which
eight experts of V3.2 (352 MB) come to the 162 us that they took in a decode step of one row on one
H200 at commit 0b4ad0a."""


def _hidden(match: Match, workspace: View | None) -> tuple[View, int]:
    carver = Carver(workspace)
    rows, top_k = match.shape("ids")
    view = carver.take("f32", rows * top_k, match.shape("gate")[1])
    return view, carver.num_bytes


def _scales(match: Match, weight: str) -> View:
    """The block scales; the weight itself where it has none, and the kernel reads none."""
    return match.view(f"{weight}:scale" if match.is_scaled(weight) else weight)


def _emit_experts(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    _, inter, dim = match.shape("gate")
    rows, top_k = match.shape("ids")
    hidden, _ = _hidden(match, match.workspace)
    x, out, ids = match.view("x"), match.view("op.out"), match.view("ids")
    sizes = {"INTER": inter, "DIM": dim, "TOP_K": top_k}
    scaled = {"BLOCK_SCALE": FP8_BLOCK if match.is_scaled("gate") else 0}
    lines, width = knobs["block_lines"], knobs["block_width"]
    first = triton_launch(
        match,
        f"{_KERNELS}.experts:expert_hidden",
        {
            "x": x,
            "ids": ids,
            "gate": match.view("gate"),
            "gate_scale": _scales(match, "gate"),
            "up": match.view("up"),
            "up_scale": _scales(match, "up"),
            "hidden": hidden,
            "real_rows": real_rows(match),
            "x_stride": i32(x.strides[0]),
        },
        sizes | {"BLOCK_INTER": lines, "BLOCK_DIM": min(width, next_power_of_two(dim))} | scaled,
        grid=(rows * top_k, -(-inter // lines), 1),
        op="smxx_experts_few_rows",
        rows_of=("x_stride",),
    )
    second = triton_launch(
        match,
        f"{_KERNELS}.experts:expert_out",
        {
            "hidden": hidden,
            "ids": ids,
            "weights": match.view("weights"),
            "down": match.view("down"),
            "down_scale": _scales(match, "down"),
            "out": out,
            "real_rows": real_rows(match),
            "out_stride": i32(out.strides[0]),
        },
        sizes | {"BLOCK_INTER": min(width, next_power_of_two(inter)), "BLOCK_DIM": lines} | scaled,
        grid=(rows, -(-dim // lines), 1),
        op="smxx_experts_few_rows",
        rows_of=("out_stride",),
    )
    return first, second


def _work(match: Match, knobs: Knobs) -> Work:
    """Every pair reads its expert anew, and multiplies on the vector units."""
    rows, top_k = match.shape("ids")
    _, inter, dim = match.shape("gate")
    pairs = rows * top_k
    flops = vector_flops(match, _WIDENING * pairs * 3 * inter * dim, "x")
    return Work(pairs * expert_bytes(match), flops, 2)


EXPERTS = Lowering(
    name="smxx_experts_few_rows",
    pattern=Region.single(ExpertsOp),
    emit=_emit_experts,
    when=dtype("x", "f32", "bf16")
    & plain("x")
    & weight_blocks("gate", "up", "down")
    & encoded_for_target("gate")
    & encoded_for_target("up")
    & encoded_for_target("down")
    & of_rows("x"),
    knobs=(Knob("block_lines", (16, 8, 32)), Knob("block_width", (512, 128, 256))),
    row_invariant=True,
    workspace=lambda match, knobs: _hidden(match, None)[1],
    work=_work,
)
