"""Routing as one launch, alone or with the product that gives its logits. Knows no device."""

from __future__ import annotations

from dataclasses import dataclass

from lostwax.backends.gpu_kernels.lowerings.launches import (
    Carver,
    f32,
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.predicates import Predicate, axis_at_most, dtype, of_rows, plain
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.moe import RouteOp
from lostwax.ir.region import Node, Region

_KERNELS = "lostwax.backends.gpu_kernels.route"
_MAX_EXPERTS = 1024  # one program holds a row's scores in registers
_MAX_ROWS = 128  # beyond, the vendor's product and a launch behind it cost less
_MOST_ROWS = 16  # of a tile: the matrix units' smallest side
_LEAST_BLOCK = 16  # experts of a program: the matrix units' smallest side, too
_MOST_BLOCK = 64
_BLOCK_K = 128
_FEW_SCORES = 1024  # that 4 warps hold, 8 a thread, with all that is made of them
_MOST_SUMMED = 32 * 1024  # numbers that the last program of a tile adds


def _choice(match: Match, node: str, experts: int) -> dict[str, int]:
    """Constants of both kernels."""
    groups, top_k = int(match.attr(node, "n_group")), int(match.attr(node, "top_k"))
    return {
        "GROUPS": groups,
        "SIZE": experts // groups,
        "TOP_GROUPS": int(match.attr(node, "topk_group")),
        "TOP_K": top_k,
        "NORMALISE": int(match.attr(node, "normalise")),
        "BLOCK_TOP": next_power_of_two(top_k),
    }


def _emit_route(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    rows, experts = match.shape("logits")
    names = {"ids": "op.ids", "weights": "op.weights"}
    views = {n: match.view(names.get(n, n)) for n in ("logits", "bias", "positions", *names)}
    scale = f32(float(match.attr("op", "scale")))
    return (
        triton_launch(
            match,
            f"{_KERNELS}:route",
            {**views, "real_rows": real_rows(match), "scale": scale},
            _choice(match, "op", experts),
            grid=(rows, 1, 1),
            op="smxx_route",
            num_warps=1,
        ),
    )


def _in_powers_of_two(logits: str, node: str) -> Predicate:
    """Experts and groups are powers of two, few enough for one program."""

    def refusal(match: Match) -> str | None:
        experts, groups = match.shape(logits)[1], int(match.attr(node, "n_group"))
        if experts > _MAX_EXPERTS:
            return f"{experts} experts, wants <= {_MAX_EXPERTS}"
        fits = next_power_of_two(experts) == experts and next_power_of_two(groups) == groups
        return None if fits else f"{experts} experts in {groups} groups, wants powers of two"

    return Predicate(refusal)


ROUTE = Lowering(
    name="smxx_route",
    pattern=Region.single(RouteOp),
    emit=_emit_route,
    when=_in_powers_of_two("logits", "op") & of_rows("logits"),
    row_invariant=True,
)


@dataclass(frozen=True, slots=True)
class _Cut:
    """How the product is cut: tiles of rows, blocks of experts, splits of its inner axis."""

    rows: int
    """Rows of a tile."""
    tiles: int
    block_experts: int
    blocks: int
    splits: int
    split_blocks: int


def _cut(match: Match) -> _Cut:
    """About a program a compute unit, and no more splits than the last of a tile adds soon."""
    rows, dim = match.shape("x")
    experts = match.shape("weight")[0]
    of_tile = min(_MOST_ROWS, next_power_of_two(rows))
    block_experts = max(_LEAST_BLOCK, min(_MOST_BLOCK, experts))
    tiles, blocks = -(-rows // of_tile), -(-experts // block_experts)
    parts = -(-dim // _BLOCK_K)
    filling = match.target.compute_units // (tiles * blocks)
    wanted = max(1, min(parts, filling, _MOST_SUMMED // (of_tile * experts)))
    each = -(-parts // wanted)
    return _Cut(of_tile, tiles, block_experts, blocks, -(-parts // each), each)


def _partial(match: Match) -> tuple[int, ...]:
    """Shape of the splits' sums."""
    cut = _cut(match)
    return (cut.tiles, cut.splits, cut.rows, match.shape("weight")[0])


def _workspace(match: Match, knobs: Knobs) -> int:
    carver = Carver(None)
    carver.take("f32", *_partial(match))
    return carver.num_bytes


def _emit_rows(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    cut, carver = _cut(match), Carver(match.workspace)
    (rows, dim), experts = match.shape("x"), match.shape("weight")[0]
    x = match.view("x")
    return (
        triton_launch(
            match,
            f"{_KERNELS}:route_rows",
            {
                **{name: match.view(name) for name in ("x", "weight", "bias", "positions")},
                "ids": match.view("routed.ids"),
                "weights": match.view("routed.weights"),
                "partial": carver.take("f32", *_partial(match)),
                "arrived": Carver(match.zeroed).take("i32", cut.tiles),
                "real_rows": real_rows(match),
                "num_rows": i32(rows),
                "x_stride": i32(x.strides[0]),
                "scale": f32(float(match.attr("routed", "scale"))),
            },
            {
                "DIM": dim,
                **_choice(match, "routed", experts),
                "BLOCK_ROWS": cut.rows,
                "BLOCK_SIDE": _MOST_ROWS,
                "BLOCK_EXPERTS": cut.block_experts,
                "BLOCK_K": _BLOCK_K,
                "SPLITS": cut.splits,
                "SPLIT_BLOCKS": cut.split_blocks,
                "WIDE_DOT": 0,
            },
            grid=(cut.tiles * cut.blocks, cut.splits, 1),
            op="smxx_route_rows",
            num_warps=8 if cut.rows * experts > _FEW_SCORES else 4,
            num_stages=min(4, cut.split_blocks),
            rows_of=("x_stride",),
        ),
    )


def _work(match: Match, knobs: Knobs) -> Work:
    """The splits' sums are written and read."""
    base, cut = match.work(), _cut(match)
    summed = cut.tiles * cut.splits * cut.rows * match.shape("weight")[0]
    return Work(base.num_bytes + 8 * summed, base.flops, 1)


ROUTE_ROWS = Lowering(
    name="smxx_route_rows",
    pattern=Region(
        {
            "logits": Node("quant.linear", {"x": "x", "weight": "weight"}),
            "routed": Node(
                "moe.route", {"logits": "logits", "bias": "bias", "positions": "positions"}
            ),
        },
        ("routed.ids", "routed.weights"),
    ),
    emit=_emit_rows,
    when=dtype("x", "bf16")
    & dtype("weight", "bf16")
    & plain("weight")
    & _in_powers_of_two("logits", "routed")
    & axis_at_most("x", 0, _MAX_ROWS)
    & of_rows("x"),
    workspace=_workspace,
    zeroed=lambda match, knobs: 4 * _cut(match).tiles,
    work=_work,
)
