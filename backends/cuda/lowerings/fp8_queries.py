"""The queries of attention and of its indexer on Hopper, from one product that turns, rotates and
quantises what it writes (kernels/fp8_queries.cu). Knows no device.
"""

from __future__ import annotations

from lostwax.backends.cuda.lowerings.fp8_products import (
    KNOBS,
    MANY_ROWS_ON_HOPPER,
    ROWS,
    THREADS,
    ProductForm,
    choose_form,
    grid_of,
    ticket_bytes,
    tickets_of,
    tiles_of,
)
from lostwax.backends.cuda.lowerings.fp8_tiles import (
    PART,
    WRITE_QUERIES,
    Extent,
    flops_of,
    moved_us,
    product_us,
)
from lostwax.backends.gpu_kernels.lowerings.fp8_terms import carve_terms, num_terms, terms_of
from lostwax.backends.gpu_kernels.lowerings.joined_queries import (
    QUERIES_FORM,
    joined_when,
    query_nodes,
    query_outputs,
    query_tables,
)
from lostwax.backends.gpu_kernels.lowerings.launches import Carver, i32, real_rows
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.parameter import Pointer, Scalar
from lostwax.ir.contract.program import KernelLaunch, Launch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCK
from lostwax.ir.region import Region

_NAMES = ("sm90_fp8_queries", "sm90_fp8_queries_quantised")
_TURNS_ALONE = 64
"""Columns of attention's heads that all turn, or all stay."""
_COLUMNS = {"columns": FP8_BLOCK}
"""Of a tile: one head of the indexer's."""


def _extent(match: Match) -> Extent:
    rows, k = match.shape("x")
    columns = sum(match.shape(weight)[0] for weight in QUERIES_FORM.concat)
    terms, target = num_terms(match, "x"), match.target
    units, room = target.compute_units, target.shared_memory_bytes
    return Extent(rows, columns, k, terms, False, units, room, write=WRITE_QUERIES)


def _form(match: Match, knobs: Knobs) -> ProductForm:
    return choose_form(_extent(match), {**knobs, **_COLUMNS})


def _workspace(match: Match, knobs: Knobs) -> int:
    carver = Carver(None)
    carve_terms(match, "x", carver)
    return carver.num_bytes


def _outs(match: Match, quantised: bool) -> tuple[View, View, View]:
    """Attention's, the indexer's, and its scales where it has any."""
    q, index = (match.view(name) for name in query_outputs(quantised))
    return q, index, match.view(f"{query_outputs(quantised)[1]}:scale") if quantised else index


def _launch(match: Match, knobs: Knobs, quantised: bool) -> tuple[Launch, ...]:
    name, form, extent = _NAMES[quantised], _form(match, knobs), _extent(match)
    x = terms_of(match, "x", Carver(match.workspace), name)
    first = QUERIES_FORM.concat[0]
    q, index, scales = _outs(match, quantised)
    fmt = quantised and match.attr("index_quantised", "scale_fmt") == "ue8m0"
    _, heads, width = match.shape("queries")
    constants = form.constants(power_of_two=fmt) | {
        "HEADS": heads,
        "WIDTH": width,
        "OFFSET": int(match.attr("q_turned", "offset")),
        "DIM": int(match.attr("q_turned", "dim")),
        "INDEX_OFFSET": int(match.attr("index_turned", "offset")),
        "INDEX_DIM": int(match.attr("index_turned", "dim")),
        "QUANTISED": int(quantised),
    }
    compiled = match.build(
        KernelSource(
            language="cuda",
            path="fp8_queries.cu",
            symbol="sm90_fp8_queries",
            constants=constants,
            num_warps=THREADS // 32,
        )
    )
    launch = KernelLaunch(
        binary=compiled.binary,
        symbol=compiled.symbol,
        grid=grid_of(match, form, extent.rows, extent.columns),
        block=(THREADS, 1, 1),
        params=(
            tiles_of(x.values, PART),
            tiles_of(match.view(first), form.tile.columns),
            Pointer(x.scale),
            Pointer(match.view(f"{first}:scale")),
            Pointer(q),
            Pointer(match.step("table")),
            Pointer(index),
            Pointer(scales),
            Pointer(match.step("index_table")),
            Pointer(real_rows(match)),
            *(Scalar("i64", n) for view in (q, index, scales) for n in view.strides[:2]),
            i32(x.scale_row),
            i32(x.scale_block),
            i32(extent.rows),
            i32(extent.columns),
            i32(-(-extent.k // FP8_BLOCK)),
            i32(form.turns),
            tickets_of(match, form),
        ),
        shared_bytes=form.shared_bytes,
        cluster=(form.tile.cluster, 1, 1),
        op=name,
    )
    return (*x.launches, launch)


def _work(match: Match, knobs: Knobs) -> Work:
    """The product's time, which has its bytes, and the terms where they are made."""
    extent = _extent(match)
    made = 4 * extent.rows * extent.k if extent.terms == 2 else 0
    us = product_us(_form(match, knobs).tile, extent) + moved_us(made)
    return Work(0, flops_of(match, "x", us), 1 + (made > 0))


def _widths(match: Match) -> str | None:
    """Tiles are heads of the indexer's, and parts of attention's that turn or stay as a whole."""
    width, index_width = match.shape("queries")[-1], match.shape("index")[-1]
    offset, dim = (int(match.attr("q_turned", n)) for n in ("offset", "dim"))
    whole = width % _TURNS_ALONE == offset % _TURNS_ALONE == 0 and dim == _TURNS_ALONE
    if not whole or match.shape("w_q_b")[0] % FP8_BLOCK:
        return (
            f"heads of {width} turn {dim} from {offset} on, wants {_TURNS_ALONE} at its multiples"
        )
    offset, dim = (int(match.attr("index_turned", n)) for n in ("offset", "dim"))
    if index_width != FP8_BLOCK or offset % 8 or dim % 16:
        return (
            f"index queries of {index_width} turn {dim} from {offset} on,"
            f" wants {FP8_BLOCK}, sixteens from an eighth on"
        )
    return None


def _lowering(quantised: bool) -> Lowering:
    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        return _launch(match, knobs, quantised)

    return Lowering(
        name=_NAMES[quantised],
        pattern=Region(query_nodes("x", quantised), query_outputs(quantised)),
        emit=emit,
        when=MANY_ROWS_ON_HOPPER & joined_when("x", quantised) & Predicate(_widths),
        knobs=(ROWS, *KNOBS),
        weights={"w_q_b": QUERIES_FORM},
        workspace=_workspace,
        zeroed=ticket_bytes,
        prepare=query_tables,
        work=_work,
    )


MANY_ROWS_QUERIES = (_lowering(quantised=False), _lowering(quantised=True))
