"""Lowerings of routing and of routed experts."""

from __future__ import annotations

from lostwax.backends import predicates as P
from lostwax.backends.ascend.contract.rule import Call, Described
from lostwax.backends.ascend.contract.rules import gating_numbers
from lostwax.backends.ascend.lowerings.keeps import KERNELS, described, keeps
from lostwax.backends.ascend.lowerings.products import row_scales
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.portable.lowerings.calls import f32_bytes, launch, torch_calls
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.program import Launch
from lostwax.ir.contract.weights import WeightForm
from lostwax.ir.dialects.moe import ExpertsOp, RouteOp
from lostwax.ir.region import Region

GATE_UP = WeightForm(name="experts_gate_up", concat=("gate", "up"), axis=1)
"""[E, 2 I, D]: one product for both. It takes its weights transposed, as does that with `down`."""


def _gating_call(match: Match) -> Call:
    experts = match.shape("logits")[1]
    groups, kept, k = (int(match.attr("op", n)) for n in ("n_group", "topk_group", "top_k"))
    tensors = {"x": described(match, "logits"), "bias": described(match, "bias")}
    values = {"group_select_mode": 1, "renorm": 0, "norm_type": 1}
    return Call(tensors, values, gating_numbers(experts, groups, kept, k))


def _normalises(match: Match) -> str | None:
    return None if match.attr("op", "normalise") else "its weights are always normalised"


def _emit_route(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    names = ("logits", "bias", "positions", "op.ids", "op.weights")
    consts = {name: match.attr("op", name) for name in ("top_k", "n_group", "topk_group", "scale")}
    return launch("ascend_route", f"{KERNELS}experts:route", tuple(map(match.view, names)), consts)


def _grouped_call(match: Match, gate_up: bool) -> Call:
    experts, inter, dim = match.shape("gate")
    pairs = match.shape("ids")[0] * match.shape("ids")[1]
    kind = match.dtype("gate" if gate_up else "down")
    inner, columns = (dim, 2 * inter) if gate_up else (inter, dim)
    tensors = {
        "x": Described(match.dtype("x"), (pairs, inner)),
        "weight": Described(kind, (experts, inner, columns)),
        "group_list": Described("i64", (experts,)),
    }
    if kind == "si8":
        tensors["scale"] = Described("bf16", (experts, columns))
        tensors["per_token_scale"] = Described("f32", (pairs,))
    values = {"split_item": 2, "group_type": 0, "group_list_type": 1, "output_dtype": "bf16"}
    return Call(tensors, values)


_GROUPED = keeps("npu_grouped_matmul", lambda m: _grouped_call(m, True)) & keeps(
    "npu_grouped_matmul", lambda m: _grouped_call(m, False)
)


def _in_fp32_scales(match: Match) -> str | None:
    fmt = match.attr("op", "hidden_fmt")
    return None if fmt == "fp32" else f"hidden_fmt is {fmt}, the operator gives fp32"


def _emit_experts(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    names = ("x", "ids", "weights", "gate", "down", "op.out")
    views = tuple(map(match.view, names))
    return launch("ascend_experts", f"{KERNELS}experts:experts", views)


def _emit_quant(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    names = (
        "x", "x:scale", "ids", "weights", "gate", "gate:scale", "down", "down:scale", "op.out",
    )  # fmt: skip
    views = tuple(map(match.view, names))
    return launch("ascend_quant_experts", f"{KERNELS}experts:quant_experts", views)


def _pairs_bytes(match: Match, knobs: Knobs) -> int:
    """A row for each token and choice: what enters, gated products, what leaves in two types."""
    experts, inter, dim = match.shape("gate")
    tokens, top_k = match.shape("ids")
    scales = 2 * experts * (2 * inter + dim)
    return (
        f32_bytes(tokens * top_k, 4 * dim + 7 * inter + 2 * experts)
        + f32_bytes(tokens, 2 * dim)
        + scales
    )


EXPERTS = (
    Lowering(
        name="ascend_route",
        pattern=Region.single(RouteOp),
        emit=_emit_route,
        when=Predicate(_normalises) & keeps("npu_moe_gating_top_k", _gating_call),
        row_invariant=True,
        work=torch_calls(5),
        allocates=lambda match, knobs: 14 * f32_bytes(*match.shape("logits")),
    ),
    Lowering(
        name="ascend_experts",
        pattern=Region.single(ExpertsOp),
        emit=_emit_experts,
        when=P.plain("x") & P.plain("gate") & P.plain("down") & P.dtype("x", "bf16") & _GROUPED,
        weights={"gate": GATE_UP},
        work=torch_calls(9),
        allocates=_pairs_bytes,
    ),
    Lowering(
        name="ascend_quant_experts",
        pattern=Region.single(ExpertsOp),
        emit=_emit_quant,
        when=row_scales("x", "gate", "up", "down") & Predicate(_in_fp32_scales) & _GROUPED,
        weights={"gate": GATE_UP},
        work=torch_calls(12),
        allocates=_pairs_bytes,
        waiver="bf16_hidden",
    ),
)
