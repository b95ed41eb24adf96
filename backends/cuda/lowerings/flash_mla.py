"""FlashMLA over a selection, under the names that SGLang gives its kernels. Chosen by name only.

Between our own launches, which bring the query into the latent space and the result out of it, one
host call runs the library's kernels: `flashmla_kv` over fp8_656 caches, `flashmla_sparse` over bf16
ones. Knows no device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from lostwax.backends.cuda.flash_mla_calls import HEADS, PACKAGE, padded_heads
from lostwax.backends.cuda.lowerings.sparse_mla import RANKS, has_ranks
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
    axis_at_most,
    axis_multiple,
    dtype,
    fact,
    layout,
    of_rows,
    plain,
)
from lostwax.ir.contract.program import HostCall, KernelLaunch, Launch, View
from lostwax.ir.dialects.mla import AttendOp
from lostwax.ir.region import Region

_KERNELS = "lostwax.backends.cuda.kernels.flash_mla"
_PAGE = 64
_MAX_ROWS = 8192  # one thread of the library plans so many in shared memory
_BLOCK_KEYS, _BLOCK_REQS = 1024, 64


@dataclass(frozen=True, slots=True)
class _Form:
    """A kernel of the library: its cache, the block of its top-k, and bytes of f32 partials."""

    name: str
    function: str
    cache: str
    keys: int
    has_splits: bool


_KV = _Form("flashmla_kv", "attend_kv", "fp8_656", 64, has_splits=True)
_SPARSE = _Form("flashmla_sparse", "attend_sparse", "bf16", 128, has_splits=False)


@dataclass(frozen=True, slots=True)
class _Scratch:
    """The absorbed query [heads, rows, 512] f32, slots [rows, keys], attended latents."""

    query: View
    slots: View
    latent: View

    @staticmethod
    def of(match: Match, carver: Carver) -> _Scratch:
        rows, heads, _ = match.shape("q_nope")
        query = carver.take("f32", heads, rows, RANKS[0])
        slots = carver.take("i32", rows, match.shape("selection")[1])
        return _Scratch(query, slots, carver.take("bf16", heads, rows, RANKS[0]))


def _workspace(match: Match, knobs: Knobs) -> int:
    carver = Carver(None)
    _Scratch.of(match, carver)
    return carver.num_bytes


def _allocates(match: Match, knobs: Knobs, form: _Form) -> int:
    """Query and result of all padded heads, two statistics; in splits, one more of each in f32."""
    rows, heads, _ = match.shape("q_nope")
    padded = padded_heads(heads)
    units = match.target.compute_units
    num_bytes = rows * padded * (2 * (sum(RANKS) + RANKS[0]) + 2 * 4)
    if form.has_splits:
        num_bytes += 4 * (rows + units) * padded * (RANKS[0] + 1) + 32 * units + 4 * (rows + 1)
    return num_bytes


def _work(match: Match, knobs: Knobs) -> Work:
    """The region's own, and what lies between the launches, written and read."""
    base, (rows, heads, _) = match.work(), match.shape("q_nope")
    between = 2 * (4 + 2 + 2 + 2) * rows * heads * RANKS[0] + 8 * rows * match.shape("selection")[1]
    return Work(base.num_bytes + between, base.flops, 8)


def _slots_launch(match: Match, slots: View, op: str) -> KernelLaunch:
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
        {"KEYS": keys, "PAGE": _PAGE, "BLOCK": _BLOCK_KEYS, "BLOCK_REQS": _BLOCK_REQS},
        grid=(rows, -(-keys // _BLOCK_KEYS), 1),
        op=op,
    )


def _emit(match: Match, knobs: Knobs, form: _Form) -> tuple[Launch, ...]:
    carver = Carver(match.workspace)
    scratch = _Scratch.of(match, carver)
    attend = HostCall(
        function=f"{_KERNELS}:{form.function}",
        args=(
            scratch.query,
            match.view("q_pe"),
            match.view("cache_in"),
            scratch.slots,
            scratch.latent,
        ),
        consts={"scale": match.attr("op", "scale")},
        capturable=True,
        op=form.name,
    )
    return (
        absorb_launch(match, knobs, scratch.query, form.name),
        _slots_launch(match, scratch.slots, form.name),
        attend,
        *PLAIN.leave(match, knobs, scratch.latent, carver, form.name),
    )


def _has_pages() -> Predicate:
    def refusal(match: Match) -> str | None:
        got = match.shape("cache_in")[1]
        return None if got == _PAGE else f"pages of {got} tokens, wants {_PAGE}"

    return Predicate(refusal)


def _lowering(form: _Form) -> Lowering:
    when = (
        fact("matrix_units", "wgmma")
        & fact("wide_products", True)
        & dtype("q_nope", "bf16")
        & dtype("q_pe", "bf16")
        & plain("kv_b")
        & dtype("kv_b", "bf16")
        & layout("cache_in", form.cache)
        & has_ranks()
        & _has_pages()
        & axis_at_most("q_nope", 1, max(HEADS))
        & axis_multiple("selection", 1, form.keys)
        & axis_at_most("q_nope", 0, _MAX_ROWS)
        & of_rows("q_nope")
    )
    return Lowering(
        name=form.name,
        pattern=Region.single(AttendOp),
        emit=partial(_emit, form=form),
        when=when,
        knobs=(ABSORB_KNOB,),
        workspace=_workspace,
        allocates=partial(_allocates, form=form),
        work=_work,
        requires=(PACKAGE,),
        by_name=True,
    )


FLASH_MLA = (_lowering(_KV), _lowering(_SPARSE))
