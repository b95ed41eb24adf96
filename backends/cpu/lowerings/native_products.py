"""Products with packed weights, gate and up as one pass, and routed experts: native kernels."""

from __future__ import annotations

from lostwax.backends import predicates as P
from lostwax.backends.cpu.contract.products import LINEAR_TYPES
from lostwax.backends.cpu.lowerings.native_calls import (
    ON_HOST,
    ROOM_BYTES,
    TILE,
    Argument,
    in_a_list,
    native,
    num_rows,
    of_types,
    symbol,
    type_name,
)
from lostwax.backends.gpu_kernels.lowerings.launches import Carver
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.calls import scale_view
from lostwax.backends.portable.lowerings.linear import GATED
from lostwax.ir.contract.program import KernelLaunch, Launch, View
from lostwax.ir.contract.weights import WeightForm
from lostwax.ir.dialects.moe import ExpertsOp
from lostwax.ir.dialects.quant import LinearOp
from lostwax.ir.region import Region

PACKED = WeightForm(name="packed", pad=(TILE, 1), tile=(TILE, 1))
"""[N / 16, K, 16, 1]: what a few columns read of a weight is one stream."""
PACKED_EXPERTS = WeightForm(name="packed_experts", pad=(1, TILE, 1), tile=(TILE, 1))

LINEAR = "x weight op.out"
GATE_UP = "x w_gate w_up gate up act"
GATE_UP_TYPES = (
    "f32 f32 f32 f32 f32 f32", "f32 f8 f8 f32 f32 f32", "f32 s8 s8 f32 f32 f32",
    "bf16 bf16 bf16 bf16 bf16 bf16", "bf16 f8 f8 bf16 bf16 bf16", "bf16 s8 s8 bf16 bf16 bf16",
    "q8 f8 f8 bf16 bf16 bf16", "q8 f8 f8 f32 f32 f32",
)  # fmt: skip
EXPERTS = "x gate up down weights op.out"
EXPERTS_TYPES = (
    "f32 f32 f32 f32 f32 f32", "f32 f8 f8 f8 f32 f32", "f32 s8 s8 s8 f32 f32",
    "bf16 bf16 bf16 bf16 f32 f32", "bf16 f8 f8 f8 f32 f32", "bf16 s8 s8 s8 f32 f32",
    "q8 f8 f8 f8 f32 f32",
)  # fmt: skip


def _work(match: Match, knobs: Knobs) -> Work:
    return in_a_list(match.work())


def _scales_of_x(match: Match) -> tuple[Argument, ...]:
    """What a kernel of e4m3 activations takes behind all else: their scales, a row's stride."""
    scales = scale_view(match, "x")
    return () if scales is None else (scales, scales.strides[0])


def _emit_linear(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    x, out = match.view("x"), match.view("op.out")
    rows, count = match.shape("x")
    return (
        native(
            match, "cpu_native_linear", symbol("linear", match, LINEAR),
            x, match.view("weight"), scale_view(match, "weight"), out, num_rows(match),
            rows, count, match.shape("weight")[0], x.strides[0], out.strides[0],
            *_scales_of_x(match), scratch_bytes=ROOM_BYTES,
        ),
    )  # fmt: skip


def _emit_gate_up(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    x, out = match.view("x"), match.view("act")
    rows, count = match.shape("x")
    types = "x w_gate act" if match.is_scaled("x") else "x w_gate"
    return (
        native(
            match, "cpu_native_gate_up", symbol("gate_up", match, types),
            x, match.view("w_gate"), scale_view(match, "w_gate"), match.view("w_up"),
            scale_view(match, "w_up"), out, num_rows(match), rows, count,
            match.shape("w_gate")[0], x.strides[0], out.strides[0], *_scales_of_x(match),
            scratch_bytes=ROOM_BYTES,
        ),
    )  # fmt: skip


def _carved(match: Match, workspace: View | None) -> tuple[Carver, View, View]:
    tokens, choices = match.shape("ids")
    _, inter, dim = match.shape("gate")
    carver = Carver(workspace)
    return (
        carver,
        carver.take("f32", tokens * choices, inter),
        carver.take("f32", tokens * choices, dim),
    )


def _rounded(
    match: Match, name: str, hidden: View, ids: View, rows: View
) -> tuple[KernelLaunch, ...]:
    """What enters the last product as e4m3, where x is."""
    if not match.is_scaled("x"):
        return ()
    tokens, choices = match.shape("ids")
    powers = int(match.attr("op", "hidden_fmt") == "ue8m0")
    return (
        native(
            match, name, "experts_round_f8", hidden, ids, rows, tokens, choices, hidden.shape[1],
            powers,
        ),
    )  # fmt: skip


def _emit_experts(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    name = "cpu_native_experts"
    _, hidden, made = _carved(match, match.workspace)
    x, ids, out = match.view("x"), match.view("ids"), match.view("op.out")
    tokens, choices = match.shape("ids")
    experts, inter, dim = match.shape("gate")
    rows, a_list = num_rows(match), 4 * (tokens * choices + 1)
    # The f32 rows of a bf16 model meet int8 in whole numbers, as x does; those of another in f32.
    names = (
        "x down" if (type_name(match, "x"), type_name(match, "down")) == ("bf16", "s8") else "down"
    )
    return (
        native(
            match, name, symbol("experts_gate_up", match, "x gate"), x, ids, match.view("gate"),
            scale_view(match, "gate"), match.view("up"), scale_view(match, "up"), hidden, rows,
            tokens, choices, experts, dim, inter, x.strides[0], *_scales_of_x(match),
            scratch_bytes=ROOM_BYTES + 2 * a_list,
        ),
        *_rounded(match, name, hidden, ids, rows),
        native(
            match, name, symbol("experts_down", match, names), hidden, ids, match.view("down"),
            scale_view(match, "down"), made, rows, tokens, choices, experts, inter, dim,
            scratch_bytes=ROOM_BYTES + a_list,
        ),
        native(
            match, name, "experts_sum_f32", made, ids, match.view("weights"), out, rows,
            tokens, choices, dim, out.strides[0],
        ),
    )  # fmt: skip


NATIVE_PRODUCTS = (
    Lowering(
        name="cpu_native_linear",
        pattern=Region.single(LinearOp),
        emit=_emit_linear,
        when=ON_HOST & of_types(LINEAR, *LINEAR_TYPES) & P.rank("x", 2) & P.of_rows("x"),
        weights={"weight": PACKED},
        row_invariant=True,
        work=_work,
    ),
    Lowering(
        name="cpu_native_gate_up",
        pattern=GATED,
        emit=_emit_gate_up,
        when=ON_HOST & of_types(GATE_UP, *GATE_UP_TYPES) & P.rank("x", 2) & P.of_rows("x"),
        weights={"w_gate": PACKED, "w_up": PACKED},
        row_invariant=True,
        work=_work,
    ),
    Lowering(
        name="cpu_native_experts",
        pattern=Region.single(ExpertsOp),
        emit=_emit_experts,
        when=ON_HOST & of_types(EXPERTS, *EXPERTS_TYPES) & P.of_rows("x"),
        weights=dict.fromkeys(("gate", "up", "down"), PACKED_EXPERTS),
        row_invariant=True,
        workspace=lambda match, knobs: _carved(match, None)[0].num_bytes,
        work=_work,
    ),
)
