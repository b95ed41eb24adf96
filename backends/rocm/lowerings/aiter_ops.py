"""AITER's routing, experts, norm with rounding, and index logits. By name only, never run.

Each is one host call. What AITER takes and gives is asked in `when`: where it means something else
than the op, it is refused with the difference. Knows no device.
"""

from __future__ import annotations

from dataclasses import replace

from lostwax.backends.gpu_kernels.lowerings.fp8_rows import block_of
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.calls import f32_bytes, launch, torch_calls
from lostwax.backends.portable.lowerings.prepared import row_requests
from lostwax.backends.predicates import (
    Predicate,
    axis_at_most,
    axis_multiple,
    dtype,
    encoded_for_target,
    encoded_layout,
    fact,
    of_rows,
    plain,
    rank,
    row_blocks,
    weight_blocks,
)
from lostwax.backends.rocm.aiter_calls import PACKAGE
from lostwax.ir.contract.program import Const, Launch
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.contract.weights import WeightForm
from lostwax.ir.dialects.dsa import IndexLogitsOp
from lostwax.ir.dialects.moe import ExpertsOp, RouteOp
from lostwax.ir.region import Node, Region

_KERNELS = "lostwax.backends.rocm.kernels."
_TILE = (16, 16)  # of one-byte weights, as its shuffle_weight lays them
_LOGIT_ROWS = 256  # beyond, a request's keys are read again too often: a row is a request to it
_KEY_DIM = 128
_CHUNK = 64  # positions that its logits write at once, whether or not a row ends before
_TWO_TILES = 256  # of an expert: with fewer it reads scales transposed, but transposes only its own
_GROUPS = (1, 2, 4, 8)  # of experts, that its kernel of the choice is built for
_MOST_CHOSEN = 64  # a lane of the wave keeps one
_AMD = fact("matrix_units", "mfma")

_ROUTE, _EXPERTS, _NORM, _LOGITS = "aiter_route", "aiter_moe", "aiter_norm", "aiter_logits"
_GATE_UP = WeightForm(name="aiter_gate_up", concat=("gate", "up"), axis=1, tile=_TILE)
_DOWN = WeightForm(name="aiter_down", tile=_TILE)


def _emit(
    match: Match, name: str, function: str, views: str, consts: dict[str, Const] | None = None
) -> tuple[Launch, ...]:
    return launch(name, _KERNELS + function, tuple(map(match.view, views.split())), consts)


def _normalises(match: Match) -> str | None:
    return None if match.attr("op", "normalise") else "its weights are always normalised"


def _chooses_so(match: Match) -> str | None:
    groups, top_k = int(match.attr("op", "n_group")), match.shape("op.ids")[1]
    if groups not in _GROUPS:
        return f"{groups} groups of experts, wants 1, 2, 4 or 8"
    return None if top_k <= _MOST_CHOSEN else f"{top_k} experts a row, wants <= {_MOST_CHOSEN}"


def _emit_route(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    consts = {name: match.attr("op", name) for name in ("n_group", "topk_group", "scale")}
    views = "logits bias positions op.ids op.weights"
    return _emit(match, _ROUTE, "aiter_route:route", views, consts)


def _in_fp32_scales(node: str, name: str) -> Predicate:
    """What it rounds inside gets scales of any f32, not powers of two."""

    def refusal(match: Match) -> str | None:
        fmt = match.attr(node, name)
        return None if fmt == "fp32" else f"{name} is {fmt}, AITER's scales are fp32"

    return Predicate(refusal)


def _emit_experts(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = "x x:scale ids weights gate gate:scale down down:scale op.out"
    return _emit(match, _EXPERTS, "aiter_experts:experts", views)


def _experts_bytes(match: Match, knobs: Knobs) -> int:
    """A row for each choice: gated products, in fp8 again, and what leaves; the lists of both."""
    experts, inter, dim = match.shape("gate")
    tokens, top_k = match.shape("ids")
    padded = tokens * top_k + 128 * experts  # lists are filled up to whole tiles of an expert
    return f32_bytes(tokens * top_k, 3 * inter + dim) + f32_bytes(tokens, 2 * dim) + 16 * padded


def _emit_norm(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    consts = {"eps": match.attr("normed", "eps")}
    views = "x weight quantised quantised:scale"
    return _emit(match, _NORM, "aiter_norm:rms_norm_quantise", views, consts)


def _in_its_blocks(match: Match) -> str | None:
    block = block_of(match, "quantised")
    return None if block == FP8_BLOCK else f"blocks have {block} columns, wants {FP8_BLOCK}"


def _emit_logits(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = [match.view(n) for n in ("q", "q:scale", "weights", "cache_in", "positions")]
    views += [match.step("requests"), match.view("page_table"), match.view("op.out")]
    consts = {"scale": match.attr("op", "scale")}
    return launch(_LOGITS, _KERNELS + "aiter_logits:index_logits", tuple(views), consts)


def _logits_work(match: Match, knobs: Knobs) -> Work:
    """Every row's keys are read, and its slots written and read, whatever rows share."""
    work, (rows, _, dim) = match.work(), match.shape("q")
    columns = match.shape("op.out")[1]
    return replace(work, num_bytes=work.num_bytes + rows * columns * (dim + 16), launches=12)


def _has_keys(match: Match) -> str | None:
    heads, dim = match.shape("q")[1:]
    fits = dim == _KEY_DIM and heads % 16 == 0
    return None if fits else f"{heads} heads of {dim}, wants tiles of 16 of {_KEY_DIM}"


AITER_OPS = (
    Lowering(
        name=_ROUTE,
        pattern=Region.single(RouteOp),
        emit=_emit_route,
        when=_AMD
        & Predicate(_normalises)
        & Predicate(_chooses_so)
        & dtype("logits", "f32")
        & dtype("bias", "f32")
        & of_rows("logits"),
        work=torch_calls(5),
        allocates=lambda match, knobs: 2 * f32_bytes(*match.shape("logits")),
        requires=(PACKAGE,),
        by_name=True,
    ),
    Lowering(
        name=_EXPERTS,
        pattern=Region.single(ExpertsOp),
        emit=_emit_experts,
        when=_AMD
        & encoded_for_target("x")
        & encoded_for_target("gate")
        & dtype("x", "f8E4M3FN", "f8E4M3FNUZ")
        & dtype("gate", "f8E4M3FN", "f8E4M3FNUZ")
        & row_blocks("x")
        & weight_blocks("gate", "up", "down")
        & _in_fp32_scales("op", "hidden_fmt")
        & dtype("op.out", "bf16")
        & axis_multiple("gate", 1, _TWO_TILES)
        & axis_multiple("gate", 2, FP8_BLOCK)
        & of_rows("x"),
        weights={"gate": _GATE_UP, "down": _DOWN},
        work=torch_calls(8),
        allocates=_experts_bytes,
        requires=(PACKAGE,),
        by_name=True,
    ),
    Lowering(
        name=_NORM,
        pattern=Region(
            {
                "normed": Node("core.rms_norm", {"x": "x", "weight": "weight"}),
                "quantised": Node("quant.quantise", {"x": "normed"}),
            },
            outputs=("quantised",),
        ),
        emit=_emit_norm,
        when=_AMD
        & encoded_for_target("quantised")
        & dtype("quantised", "f8E4M3FN", "f8E4M3FNUZ")
        & Predicate(_in_its_blocks)
        & _in_fp32_scales("quantised", "scale_fmt")
        & dtype("normed", "f32")  # it rounds its f32 sums once, to fp8
        & plain("weight")
        & rank("x", 2)
        & of_rows("x"),
        work=torch_calls(3),
        allocates=lambda match, knobs: 2 * f32_bytes(*match.shape("x")),
        requires=(PACKAGE,),
        by_name=True,
    ),
    Lowering(
        name=_LOGITS,
        pattern=Region.single(IndexLogitsOp),
        emit=_emit_logits,
        when=_AMD
        & encoded_layout("cache_in", "index_row")
        & encoded_for_target("q")
        & row_blocks("q")
        & Predicate(_has_keys)
        & axis_multiple("op.out", 1, _CHUNK)
        & axis_at_most("q", 0, _LOGIT_ROWS)
        & of_rows("q"),
        prepare=row_requests,
        work=_logits_work,
        allocates=lambda match, knobs: 4 * f32_bytes(*match.shape("op.out")),
        requires=(PACKAGE,),
        by_name=True,
    ),
)
"""Where scores are equal AITER promises no order, and it sums in one of its own: what that changes
is seen by golden probes at the first boot on a device."""
