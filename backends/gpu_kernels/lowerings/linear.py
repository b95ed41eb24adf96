"""Products of few rows with block-scaled fp8 weights, read once as they lie. Knows no device."""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings.launches import (
    Carver,
    i32,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.predicates import (
    Predicate,
    axis_at_most,
    dtype,
    encoded_for_target,
    of_rows,
    row_blocks,
    weight_blocks,
)
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.dialects.core import SiluMulOp
from lostwax.ir.dialects.quant import LinearOp
from lostwax.ir.region import Region

_KERNELS = "lostwax.backends.gpu_kernels"
_MAX_ROWS = 64  # beyond, converting the weight once for the vendor's product costs less
_BLOCK_ROWS = 16  # the matrix units' smallest side
_BLOCK_COLUMNS = 1024
_WIDENING = 40
"""Vector operations that widening and scaling a weight takes: an estimate, by which the 45 products
of a decode step of one row (five layers of V3.2, 1.5 GB) come to the 1.09 ms that they took on one
H200 at commit 0b4ad0a. This kernel was not timed by itself."""
_MIN_BLOCKS = 4  # of a split by rule: shorter ones cost more to sum than they save


def _splits(match: Match, knobs: Knobs) -> tuple[int, int]:
    """Splits of K and scale blocks of each: about one program a compute unit, at most 8 splits."""
    rows = match.shape("x")[0]
    n, k = match.shape("weight")
    blocks = -(-k // FP8_BLOCK)
    programs = -(-n // knobs["block_n"]) * -(-rows // _BLOCK_ROWS)
    filling = min(8, match.target.compute_units // programs, blocks // _MIN_BLOCKS)
    wanted = knobs["splits"] or max(1, filling)
    each = -(-blocks // min(wanted, blocks))
    return -(-blocks // each), each


def _partial(match: Match, knobs: Knobs, workspace: View | None) -> tuple[View | None, int]:
    splits, _ = _splits(match, knobs)
    if splits == 1:
        return None, 0
    carver = Carver(workspace)
    return carver.take("f32", splits, *match.shape("op.out")), carver.num_bytes


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    rows, k = match.shape("x")
    n = match.shape("weight")[0]
    splits, split_blocks = _splits(match, knobs)
    partial, _ = _partial(match, knobs, match.workspace)
    x, out = match.view("x"), match.view("op.out")
    x_scaled = match.is_scaled("x")
    target = partial or out
    product = triton_launch(
        match,
        f"{_KERNELS}.linear:linear_scaled",
        {
            "x": x,
            "x_scale": match.view("x:scale") if x_scaled else match.view("weight:scale"),
            "weight": match.view("weight"),
            "weight_scale": match.view("weight:scale"),
            "out": target,
            "real_rows": real_rows(match),
            "num_rows": i32(rows),
            "N": i32(n),
            "K": i32(k),
            "split_blocks": i32(split_blocks),
            "x_stride": i32(x.strides[0]),
            "out_stride": i32(target.strides[-2]),
        },
        {
            "BLOCK_ROWS": _BLOCK_ROWS,
            "BLOCK_N": knobs["block_n"],
            "BLOCK_SCALE": FP8_BLOCK,
            "X_SCALED": int(x_scaled),
            "WIDE_DOT": int(match.dtype("x") == "f32"),
        },
        grid=(-(-n // knobs["block_n"]), splits, -(-rows // _BLOCK_ROWS)),
        op="smxx_linear_few_rows",
        num_stages=knobs["num_stages"],
        rows_of=("N", "K", "x_stride", "out_stride"),
    )
    if partial is None:
        return (product,)
    block = _BLOCK_COLUMNS
    total = triton_launch(
        match,
        f"{_KERNELS}.linear:sum_splits",
        {
            "partial": partial,
            "out": out,
            "real_rows": real_rows(match),
            "splits": i32(splits),
            "num_rows": i32(rows),
            "N": i32(n),
            "out_stride": i32(out.strides[0]),
        },
        {"BLOCK": block},
        grid=(rows, -(-n // block), 1),
        op="smxx_linear_few_rows",
        rows_of=("N", "out_stride"),
    )
    return product, total


def vector_flops(match: Match, operations: float, value: str) -> float:
    """Operations of the vector units, at the rate that the estimate takes for `value`."""
    rates = match.target.tflops
    return operations * rates.get(match.dtype(value), rates["f32"]) / rates["f32"]


def _work(match: Match, knobs: Knobs) -> Work:
    """Every tile of rows reads and widens the weight anew."""
    base = match.work()
    splits, _ = _splits(match, knobs)
    rows, n = match.shape("op.out")
    partial = 2 * 4 * splits * rows * n if splits > 1 else 0
    weights = -(-rows // _BLOCK_ROWS) * n * match.shape("weight")[1]
    flops = max(base.flops, vector_flops(match, _WIDENING * weights, "x"))
    return Work(base.num_bytes + partial, flops, 1 + (splits > 1))


def _weight_is_scaled(match: Match) -> str | None:
    return None if match.is_scaled("weight") else "weight has no block scales"


LINEAR = Lowering(
    name="smxx_linear_few_rows",
    pattern=Region.single(LinearOp),
    emit=_emit,
    when=Predicate(_weight_is_scaled)
    & weight_blocks("weight")
    & row_blocks("x")
    & encoded_for_target("weight")
    & encoded_for_target("x")
    & dtype("op.out", "f32", "bf16")
    & axis_at_most("x", 0, _MAX_ROWS)
    & of_rows("x"),
    knobs=(
        Knob("splits", (0, 1, 2, 4, 8)),
        Knob("block_n", (64, 32, 128)),
        Knob("num_stages", (4, 2, 3, 5)),
    ),
    workspace=lambda match, knobs: _partial(match, knobs, None)[1],
    work=_work,
)


def _emit_silu_mul(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    rows, width = match.shape("gate")
    gate, up, out = match.view("gate"), match.view("up"), match.view("op.out")
    return (
        triton_launch(
            match,
            f"{_KERNELS}.elementwise:silu_mul",
            {
                "gate": gate,
                "up": up,
                "out": out,
                "real_rows": real_rows(match),
                "gate_stride": i32(gate.strides[0]),
                "up_stride": i32(up.strides[0]),
                "out_stride": i32(out.strides[0]),
                "WIDTH": i32(width),
            },
            {"BLOCK": _BLOCK_COLUMNS},
            grid=(rows, -(-width // _BLOCK_COLUMNS), 1),
            op="smxx_silu_mul",
            rows_of=("gate_stride", "up_stride", "out_stride", "WIDTH"),
        ),
    )


def _has_two_axes(match: Match) -> str | None:
    axes = len(match.shape("gate"))
    return None if axes == 2 else f"gate has {axes} axes, wants 2"


SILU_MUL = Lowering(
    name="smxx_silu_mul",
    pattern=Region.single(SiluMulOp),
    emit=_emit_silu_mul,
    when=Predicate(_has_two_axes)
    & dtype("gate", "f32", "bf16")
    & dtype("op.out", "f32", "bf16")
    & of_rows("gate"),
    row_invariant=True,
)
