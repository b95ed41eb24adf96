"""Lowerings of routing and of routed experts whose shapes do not depend on the routing."""

from __future__ import annotations

from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.calls import (
    f32_bytes,
    launch,
    scale_view,
    torch_calls,
    value_bytes,
)
from lostwax.backends.predicates import row_blocks, weight_blocks
from lostwax.ir.contract.program import Const, Launch, View
from lostwax.ir.dialects.moe import ExpertsOp, RouteOp
from lostwax.ir.region import Region

IN_BLOCKS = row_blocks("x") & weight_blocks("gate", "up", "down")
"""What kernels of experts that are stored apart read."""
ROUTE_CONSTS = ("top_k", "n_group", "topk_group", "normalise", "scale")


def _emit_route(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    names = ("logits", "bias", "positions", "op.ids", "op.weights")
    consts = {name: match.attr("op", name) for name in ROUTE_CONSTS}
    views = tuple(match.view(n) for n in names)
    return launch("portable_route", "route:route", views, consts)


def expert_views(match: Match) -> tuple[View | None, ...]:
    """What kernels of experts that are stored apart read, in their order."""
    weights: list[View | None] = []
    for name in ("gate", "up", "down"):
        weights += [match.view(name), scale_view(match, name)]
    x = (match.view("x"), scale_view(match, "x"))
    return (*x, match.view("ids"), match.view("weights"), *weights, match.view("op.out"))


def hidden_consts(match: Match) -> dict[str, Const]:
    """How what enters the last product is rounded, if it is."""
    return {"hidden_fmt": match.attr("op", "hidden_fmt")} if match.is_scaled("x") else {}


def expert_bytes(match: Match) -> float:
    """Stored bytes of one expert."""
    experts = match.shape("gate")[0]
    return sum(value_bytes(match, w) for w in ("gate", "up", "down")) / experts


def _emit_gather(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    consts = {**knobs, **hidden_consts(match)}
    return launch("portable_experts_gather", "experts:experts_gather", expert_views(match), consts)


def _emit_dense(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views, consts = expert_views(match), hidden_consts(match)
    return launch("portable_experts_dense", "experts:experts_dense", views, consts)


def _gather_work(match: Match, knobs: Knobs) -> Work:
    """Every pair's weights are read, written as f32 and read again."""
    _, inter, dim = match.shape("gate")
    tokens, top_k = match.shape("ids")
    pairs = tokens * top_k
    moved = pairs * (expert_bytes(match) + 4 * 3 * f32_bytes(inter, dim))
    tiles = -(-pairs // knobs["pair_tile"])
    return Work(moved, match.work().flops, 6 + 14 * tiles)


def _dense_work(match: Match, knobs: Knobs) -> Work:
    """Every expert meets every row."""
    experts, inter, dim = match.shape("gate")
    tokens = match.shape("x")[0]
    is_converted = match.dtype("gate") != "f32"
    moved = experts * (expert_bytes(match) + is_converted * 2 * 3 * f32_bytes(inter, dim))
    moved += experts * f32_bytes(tokens, 6 * inter + dim)
    flops = 6 * tokens * experts * inter * dim
    return Work(moved, flops, 5 + experts * (7 + 3 * is_converted))


def _gather_bytes(match: Match, knobs: Knobs) -> int:
    _, inter, dim = match.shape("gate")
    tokens, top_k = match.shape("ids")
    tile = min(tokens * top_k, knobs["pair_tile"])
    return 6 * f32_bytes(tile, inter, dim) + 4 * f32_bytes(tokens * (top_k + 3), dim)


def _dense_bytes(match: Match, knobs: Knobs) -> int:
    experts, inter, dim = match.shape("gate")
    tokens = match.shape("x")[0]
    return 6 * f32_bytes(inter, dim) + f32_bytes(tokens, 6 * inter + 2 * dim + 2 * experts)


EXPERTS = (
    Lowering(
        name="portable_route",
        pattern=Region.single(RouteOp),
        emit=_emit_route,
        row_invariant=True,
        work=torch_calls(18),
        allocates=lambda match, knobs: 12 * f32_bytes(*match.shape("logits")),
    ),
    Lowering(
        name="portable_experts_gather",
        pattern=Region.single(ExpertsOp),
        emit=_emit_gather,
        when=IN_BLOCKS,
        knobs=(Knob("pair_tile", (16, 4, 64)),),
        work=_gather_work,
        allocates=_gather_bytes,
    ),
    Lowering(
        name="portable_experts_dense",
        pattern=Region.single(ExpertsOp),
        emit=_emit_dense,
        when=IN_BLOCKS,
        work=_dense_work,
        allocates=_dense_bytes,
    ),
)
