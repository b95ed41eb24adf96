"""AITER over a selection, under the name that SGLang gives it. Chosen by name only, never run.

Between our own launches, which bring the query into the latent space and the result out of it, one
host call runs AITER's decode over bf16 rows. Knows no device.
"""

from __future__ import annotations

from dataclasses import dataclass

from lostwax.backends.gpu_kernels.lowerings.absorbed import ABSORB_KNOB, PLAIN, absorb_launch
from lostwax.backends.gpu_kernels.lowerings.launches import (
    Carver,
    i32,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.predicates import (
    Predicate,
    dtype,
    fact,
    layout,
    of_rows,
    plain,
)
from lostwax.backends.rocm.aiter_calls import HEADS, PACKAGE
from lostwax.ir.contract.program import HostCall, KernelLaunch, Launch, View
from lostwax.ir.dialects.mla import AttendOp
from lostwax.ir.region import Region

_NAME = "aiter"
_RANKS = (512, 64)
_MOST_SPLITS = 16  # of a row's keys, by its own rule
_BLOCK_KEYS, _BLOCK_REQS = 1024, 64


@dataclass(frozen=True, slots=True)
class _Scratch:
    """The absorbed query [heads, rows, 512] f32, slots [rows, keys], attended latents."""

    query: View
    slots: View
    latent: View

    @staticmethod
    def of(match: Match, carver: Carver) -> _Scratch:
        rows, heads, _ = match.shape("q_nope")
        query = carver.take("f32", heads, rows, _RANKS[0])
        slots = carver.take("i32", rows, match.shape("selection")[1])
        return _Scratch(query, slots, carver.take("bf16", heads, rows, _RANKS[0]))


def _workspace(match: Match, knobs: Knobs) -> int:
    carver = Carver(None)
    _Scratch.of(match, carver)
    return carver.num_bytes


def _allocates(match: Match, knobs: Knobs) -> int:
    """The joined query, the result, f32 partials of all splits, and the list of slots with what it
    is made of."""
    (rows, heads, _), keys = match.shape("q_nope"), match.shape("selection")[1]
    of_heads = rows * heads * (2 * (sum(_RANKS) + _RANKS[0]) + 4)
    of_splits = 4 * rows * _MOST_SPLITS * heads * (_RANKS[0] + 1)
    return of_heads + of_splits + rows * keys * (1 + 8 + 8 + 4) + 64 * (rows + 1)


def _work(match: Match, knobs: Knobs) -> Work:
    """The region's own, and what lies between the launches, written and read."""
    base, (rows, heads, _) = match.work(), match.shape("q_nope")
    between = 2 * (4 + 2 + 2 + 2) * rows * heads * _RANKS[0]
    between += 40 * rows * match.shape("selection")[1]
    return Work(base.num_bytes + between, base.flops, 16)


def _slots_launch(match: Match, slots: View) -> KernelLaunch:
    selection, page_table = match.view("selection"), match.view("page_table")
    rows, keys = slots.shape
    return triton_launch(
        match,
        "lostwax.backends.gpu_kernels.selected_slots:selected_slots",
        {
            "selection": selection,
            "q_starts": match.view("q_starts"),
            "page_table": page_table,
            "slots": slots,
            "real_rows": real_rows(match),
            "reqs": i32(page_table.shape[0]),
            "selection_stride": i32(selection.strides[0]),
            "table_stride": i32(page_table.strides[0]),
        },
        {
            "KEYS": keys,
            "PAGE": match.shape("cache_in")[1],
            "BLOCK": _BLOCK_KEYS,
            "BLOCK_REQS": _BLOCK_REQS,
        },
        grid=(rows, -(-keys // _BLOCK_KEYS), 1),
        op=_NAME,
    )


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    carver = Carver(match.workspace)
    scratch = _Scratch.of(match, carver)
    attend = HostCall(
        function="lostwax.backends.rocm.kernels.aiter:attend_selected",
        args=(
            scratch.query,
            match.view("q_pe"),
            match.view("cache_in"),
            scratch.slots,
            scratch.latent,
        ),
        consts={"scale": match.attr("op", "scale")},
        capturable=True,
        op=_NAME,
    )
    return (
        absorb_launch(match, knobs, scratch.query, _NAME),
        _slots_launch(match, scratch.slots),
        attend,
        *PLAIN.leave(match, knobs, scratch.latent, carver, _NAME),
    )


def _has_ranks(match: Match) -> str | None:
    got = match.parts("cache_in")
    return None if got == _RANKS else f"cached rows have parts {got}, wants {_RANKS}"


def _has_heads(match: Match) -> str | None:
    heads = match.shape("q_nope")[1]
    return None if heads in HEADS else f"a rank has {heads} heads, wants 16 or 128"


AITER = Lowering(
    name=_NAME,
    pattern=Region.single(AttendOp),
    emit=_emit,
    when=fact("matrix_units", "mfma")
    & dtype("q_nope", "bf16")
    & dtype("q_pe", "bf16")
    & plain("kv_b")
    & dtype("kv_b", "bf16")
    & layout("cache_in", "bf16")
    & Predicate(_has_ranks)
    & Predicate(_has_heads)
    & of_rows("q_nope"),
    knobs=(ABSORB_KNOB,),
    workspace=_workspace,
    allocates=_allocates,
    work=_work,
    requires=(PACKAGE,),
    by_name=True,
)
