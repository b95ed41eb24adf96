"""Lowerings of products, and of the rounding before them."""

from __future__ import annotations

from collections.abc import Mapping

from lostwax.backends import predicates as P
from lostwax.backends.ascend.contract.rule import Call, Described
from lostwax.backends.ascend.lowerings.keeps import KERNELS, described, keeps
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.calls import (
    Emit,
    emit_call,
    f32_bytes,
    launch,
    torch_calls,
)
from lostwax.backends.portable.lowerings.linear import (
    GATE_UP,
    GATE_UP_TRANSPOSED,
    GATED,
    GATED_PLAIN,
    TRANSPOSED,
)
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.program import Launch
from lostwax.ir.contract.scale_layout import BlockScale
from lostwax.ir.contract.weights import WeightForm
from lostwax.ir.dialects.quant import LinearOp, QuantiseOp
from lostwax.ir.region import Region


def row_scales(*values: str) -> Predicate:
    """Each value is int8 with one f32 scale a row."""

    def refusal(match: Match) -> str | None:
        for value in values:
            scale, columns = match.scale(value), match.shape(value)[-1]
            by_row = isinstance(scale, BlockScale) and scale.rows == 1 and scale.cols >= columns
            if match.dtype(value) != "si8" or not by_row:
                held = match.dtype(value) if scale is None else f"{match.dtype(value)} {scale}"
                return f"{value} is {held}, wants si8 with a scale a row"
        return None

    return Predicate(refusal)


def _product(match: Match, weights: tuple[str, ...]) -> Call:
    rows, inner = match.shape("x")
    columns = sum(match.shape(weight)[0] for weight in weights)
    tensors = {
        "x1": described(match, "x"),
        "x2": Described(match.dtype(weights[0]), (inner, columns)),
        "scale": Described("f32", (columns,)),
        "pertoken_scale": Described("f32", (rows,)),
    }
    return Call(tensors, {"output_dtype": "bf16"})


def _linear_call(match: Match) -> Call:
    return _product(match, ("weight",))


def _gated_call(match: Match) -> Call:
    return _product(match, ("w_gate", "w_up"))


def _swiglu_call(match: Match) -> Call:
    rows, columns = match.shape("act")
    return Call({"input": Described("bf16", (rows, 2 * columns))}, {"dim": -1})


def _quantise_call(match: Match) -> Call:
    return Call({"input": described(match, "x")}, {"quant_mode": "pertoken"})


def _in_f32_scales(match: Match) -> str | None:
    fmt = match.attr("op", "scale_fmt")
    return None if fmt == "fp32" else f"scale_fmt is {fmt}, the operator gives fp32"


def _emit_scaled(name: str, function: str, weight: str, out: str) -> Emit:
    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        names = ("x", "x:scale", weight, f"{weight}:scale", out)
        return launch(name, f"{KERNELS}products:{function}", tuple(map(match.view, names)))

    return emit


def _emit_plain(name: str, function: str, weight: str, out: str) -> Emit:
    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        views = (match.view("x"), match.view(weight), match.view(out))
        return launch(name, f"{KERNELS}products:{function}", views)

    return emit


def _is_widened(match: Match) -> bool:
    return len({match.dtype(value) for value in ("x", "weight", "op.out")}) > 1


def _widened(match: Match, knobs: Knobs) -> int:
    """x and some rows of the weight in f32, and their result."""
    if not _is_widened(match):
        return 0
    rows, (columns, inner) = match.shape("x")[0], match.shape("weight")
    tile = min(columns, knobs["row_tile"])
    return f32_bytes(rows, inner + tile) + f32_bytes(tile, inner)


def _linear_work(match: Match, knobs: Knobs) -> Work:
    """Where it is widened, the weight is written once more and read again, in f32."""
    work = match.work()
    if not _is_widened(match):
        return work
    columns, inner = match.shape("weight")
    moved = work.num_bytes + 2 * f32_bytes(columns, inner)
    rate = match.target.tflops[match.dtype("x")] / match.target.tflops["f32"]
    return Work(moved, rate * work.flops, 1 + 3 * -(-columns // knobs["row_tile"]))


def _emit_linear(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = tuple(map(match.view, ("x", "weight", "op.out")))
    return launch("ascend_linear", f"{KERNELS}products:linear", views, {**knobs})


def _gated(
    name: str, function: str, when: Predicate, form: WeightForm, is_scaled: bool
) -> Lowering:
    emit = _emit_scaled if is_scaled else _emit_plain
    weights: Mapping[str, WeightForm] = {"w_gate": form}
    return Lowering(
        name=name,
        pattern=GATED,
        emit=emit(name, function, "w_gate", "act"),
        when=when & P.dtype("act", "bf16") & keeps("npu_swiglu", _swiglu_call),
        weights=weights,
        work=torch_calls(3),
        # the product of both, and half of it in f32, once more where its factor is widened
        allocates=lambda match, knobs: 4 * f32_bytes(*match.shape("act")),
    )


PRODUCTS = (
    Lowering(
        name="ascend_linear",
        pattern=Region.single(LinearOp),
        emit=_emit_linear,
        when=P.plain("x") & P.plain("weight") & P.dtype("x", "bf16", "f32"),
        knobs=(Knob("row_tile", (16384,)),),
        work=_linear_work,
        allocates=_widened,
    ),
    Lowering(
        name="ascend_quant_linear",
        pattern=Region.single(LinearOp),
        emit=_emit_scaled("ascend_quant_linear", "quant_linear", "weight", "op.out"),
        when=row_scales("x", "weight") & keeps("npu_quant_matmul", _linear_call),
        weights={"weight": TRANSPOSED},
        work=torch_calls(2),
        allocates=lambda match, knobs: f32_bytes(*match.shape("op.out")),
    ),
    _gated("ascend_gate_up", "gate_up", GATED_PLAIN & P.dtype("x", "bf16"), GATE_UP, False),
    _gated(
        "ascend_quant_gate_up",
        "quant_gate_up",
        row_scales("x", "w_gate", "w_up")
        & P.dtype("gate", "bf16")
        & P.dtype("up", "bf16")
        & keeps("npu_quant_matmul", _gated_call),
        GATE_UP_TRANSPOSED,
        True,
    ),
    Lowering(
        name="ascend_quantise",
        pattern=Region.single(QuantiseOp),
        emit=emit_call("ascend_quantise", f"{KERNELS}products:quantise", "x op.out op.out:scale"),
        when=row_scales("op.out")
        & Predicate(_in_f32_scales)
        & keeps("npu_dynamic_quant", _quantise_call),
        row_invariant=True,
        work=torch_calls(3),
        allocates=lambda match, knobs: 5 * f32_bytes(*match.shape("x")),
    ),
)
