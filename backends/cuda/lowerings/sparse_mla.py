"""Absorbed MLA over a selection on Hopper's matrix units (kernels/sparse_mla.cu, and for blocks of
64 heads sparse_mla_wide.cu). Knows no device.

Between what brings the query into the latent space and the result out of it (`absorbed.py`) one
launch reads each selected row of the cache once a block of heads, in its stored bytes, and combines
the splits of a row over a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from lostwax.backends.gpu_kernels.lowerings.absorbed import (
    ABSORB_KNOB,
    ENDS,
    PLAIN,
    End,
    absorb_launch,
)
from lostwax.backends.gpu_kernels.lowerings.attend import ATTEND_ALL_REGION
from lostwax.backends.gpu_kernels.lowerings.launches import Carver, f32, i32, real_rows
from lostwax.backends.gpu_kernels.lowerings.ranks import LATENT, RANKS, has_ranks
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.predicates import (
    axis_at_most,
    dtype,
    fact,
    fact_at_least,
    layout,
    of_rows,
    plain,
)
from lostwax.ir.contract.cache_layout import row_bytes
from lostwax.ir.contract.kernel import SHARED_BYTES, KernelSource
from lostwax.ir.contract.parameter import Pointer, Scalar
from lostwax.ir.contract.program import KernelLaunch, Launch, View
from lostwax.ir.dialects.mla import AttendOp
from lostwax.ir.region import Region

_TILE = 64  # keys of a stage
_PAIR = 2 * _TILE  # keys that a CTA takes at a time
_COMPUTE_WARPS = 8
_SPLITS = (1, 2, 4, 8, 16)
_MAX_ROWS = 65535  # rows are the grid's third axis
_MANY_ROWS = 256
FORMATS = {"bf16": 0, "fp8_656": 1, "fp8_576": 2}
_FP8_COSTS = {16: (8.8, 2.8, 0.0), 32: (12.0, 3.3, 0.0), 64: (17.4, 5.2, 0.0)}
_COSTS = {
    ("bf16", 2): {16: (7.2, 4.5, 0.0175), 32: (11.3, 5.0, 0.018), 64: (18.5, 5.0, 0.004)},
    ("bf16", 1): {16: (7.1, 4.5, 0.016), 32: (11.4, 4.8, 0.018), 64: (17.5, 3.7, 0.008)},
    ("fp8_656", 1): _FP8_COSTS,
    ("fp8_576", 1): _FP8_COSTS,
}
"""Microseconds by cache layout and terms of the query, then heads of a CTA: for a CTA to begin and
end, for a pair of its tiles, and for a pair of each row of the step: what comes out of the device's
memory, not out of L2, as another block of heads has read it (least squares over choose_form's
measurements that fill an H200 once or twice, and of near equals the faster first; of fp8 those that
fill it once, and no third). Blocks that are not named do not fit: rows, queries and sums lie beside
each other."""

_NUM_LAUNCHES = 2  # before what leaves


@dataclass(frozen=True, slots=True)
class SparseForm:
    """What one CTA takes: `heads` of a row, in `splits` of its keys; a query of `parts` terms."""

    layout: str
    heads: int
    splits: int
    parts: int

    @property
    def is_wide(self) -> bool:
        """By the kernel whose M side are heads, not keys: 64 of them over bf16 rows."""
        return self.layout == "bf16" and self.heads == 64

    @property
    def symbol(self) -> str:
        """The kernel's."""
        return "sm90_sparse_mla_wide" if self.is_wide else "sm90_sparse_mla"

    @property
    def path(self) -> str:
        """The kernel's source."""
        return self.symbol.removeprefix("sm90_") + ".cu"

    @property
    def threads(self) -> int:
        """Of a CTA."""
        return 512 if self.is_wide else 384

    @property
    def stages(self) -> int:
        """Tiles of keys under way: as many as fit beside the query."""
        if self.layout == "bf16":
            return 2
        return 3 if self.heads == 64 else 4

    @property
    def shared_bytes(self) -> int:
        """As `layout.h` adds it up; the kernel does not compile where the two differ."""
        row = row_bytes(self.layout, RANKS)
        if self.is_wide:
            # Of the query what registers do not hold: 10 boxes of 64 dims and one of 16, or 3.
            query = 10 * 64 * 128 + 64 * 32 if self.parts == 2 else 3 * 64 * 128
            stage = 9 * _TILE * 128 + 16 + 4 * self.heads + 16 + 24
            return query + self.stages * stage + 3 * 8
        pitch = row if row // 16 % 2 else row + 16
        query_tiles = 9 + (8 if self.parts == 2 else 0)
        operands = (query_tiles + 2) * self.heads * 128
        ring = self.stages * (_TILE * (pitch + 4) + 16)
        return operands + ring + 4 * self.heads * (_COMPUTE_WARPS + 3)

    def constants(self, page_tokens: int, dense: bool) -> dict[str, int]:
        """The kernel's macros."""
        return {
            "FORMAT": FORMATS[self.layout],
            "HEADS": self.heads,
            "STAGES": self.stages,
            "PAGE": page_tokens,
            "DENSE": int(dense),
            "QUERY_PARTS": self.parts,
            SHARED_BYTES: self.shared_bytes,
        }


def query_terms(cache: str, segment: str, rows: int, knobs: Knobs) -> int:
    """How many bf16 terms the absorbed query has; a `query_parts` that is not 0 has the last word.

    fp8 rows are multiplied by one, of f16. Over bf16 rows two keep what the query is; one is what
    bf16 rounds it to, and is for long extend steps, which products bound: 1,285 us against 1,611
    (1,024 rows of 128 heads). Relative errors of a row: 4.1e-3 at most with one term, 3.0e-3 with
    two; where scores reach 100, 1.5e-2 and 2.1e-3 (choose_form's measurements).
    """
    if cache != "bf16":
        return 1
    is_long = segment == "extend" and rows >= _MANY_ROWS
    return knobs["query_parts"] or (1 if is_long else 2)


def choose_form(
    cache: str, parts: int, rows: int, heads: int, keys: int, compute_units: int, knobs: Knobs
) -> SparseForm:
    """The form with the least `_estimate`; knobs that are not 0 have the last word.

    Over the 46 sizes of which two to 13 forms were timed (bf16 with two terms and with one, and
    fp8_656; 16 to 128 heads, 1 to 1,024 rows, 2,048 keys) it takes the fastest, but for one that is
    1.3 % and one that is 0.1 % slower; 4 rows of 128 heads with two terms it gives to blocks of 64,
    which were not timed there: `python benchmarks/sparse_mla.py run`, an H200,
    benchmarks/results/2026-11-29-h200-sparse-mla.json.
    """
    costs = _COSTS[cache, parts]
    blocks = [min(knobs["block_heads"], max(costs))] if knobs["block_heads"] else list(costs)
    splits = [knobs["splits"]] if knobs["splits"] else _SPLITS
    forms = [SparseForm(cache, block, split, parts) for block in blocks for split in splits]
    return min(forms, key=lambda form: _estimate(form, rows, heads, keys, compute_units))


def _estimate(form: SparseForm, rows: int, heads: int, keys: int, compute_units: int) -> float:
    """Microseconds, roughly: how often the device is filled, times what a CTA takes, and far rows.

    A CTA has a unit for itself. A cluster lies within a group of units: of 132, clusters of 4 and
    more fill half at most (16 of 4, 8 of 8 and 4 of 16 ran at once; twice as many took twice that).
    """
    units = compute_units if form.splits <= 2 else compute_units // 2
    clusters = rows * -(-heads // form.heads)
    times = -(-clusters // max(1, units // form.splits))
    pairs = -(-keys // _PAIR)
    start, pair, far = _COSTS[form.layout, form.parts][form.heads]
    return times * (start + -(-pairs // form.splits) * pair) + rows * pairs * far


def _form(match: Match, knobs: Knobs) -> SparseForm:
    rows, heads, _ = match.shape("q_nope")
    units = match.target.compute_units
    cache = match.layout("cache_in")
    parts = query_terms(cache, match.segment, rows, knobs)
    return choose_form(cache, parts, rows, heads, _keys(match), units, knobs)


def _keys(match: Match) -> int:
    """The most keys of a row."""
    pages, page_tokens, *_ = match.shape("cache_in")
    return min(match.shape("selection")[1], pages * page_tokens)


@dataclass(frozen=True, slots=True)
class _Scratch:
    """The absorbed query [heads, rows, 512] f32, and the attended latents in the result's dtype."""

    query: View
    latent: View

    @staticmethod
    def of(match: Match, carver: Carver) -> _Scratch:
        rows, heads, _ = match.shape("q_nope")
        query = carver.take("f32", heads, rows, LATENT)
        latent = carver.take("bf16", heads, rows, LATENT)
        return _Scratch(query, latent)


def _workspace(match: Match, knobs: Knobs, end: End) -> int:
    carver = Carver(None)
    _Scratch.of(match, carver)
    end.carve(match, carver)
    return carver.num_bytes


def _work(match: Match, knobs: Knobs, end: End) -> Work:
    """The region's own, and the query and the latents written and read between the launches."""
    base, (rows, heads, _) = match.work(), match.shape("q_nope")
    between = 2 * (4 + 2) * rows * heads * LATENT
    return Work(base.num_bytes + between, base.flops, _NUM_LAUNCHES + end.launches)


def _emit(match: Match, knobs: Knobs, name: str, dense: bool, end: End) -> tuple[Launch, ...]:
    rows, heads, _ = match.shape("q_nope")
    carver = Carver(match.workspace)
    form, scratch = _form(match, knobs), _Scratch.of(match, carver)
    cache, page_table = match.view("cache_in"), match.view("page_table")
    positions, q_pe = match.view("positions"), match.view("q_pe")
    selection = positions if dense else match.view("selection")
    page_tokens = match.shape("cache_in")[1]
    compiled = match.build(
        KernelSource(
            language="cuda",
            path=form.path,
            symbol=form.symbol,
            constants=form.constants(page_tokens, dense),
            num_warps=form.threads // 32,
        )
    )
    attend = KernelLaunch(
        binary=compiled.binary,
        symbol=compiled.symbol,
        grid=(form.splits, -(-heads // form.heads), rows),
        block=(form.threads, 1, 1),
        params=(
            Pointer(scratch.query),
            Pointer(q_pe),
            Pointer(cache),
            Pointer(selection),
            Pointer(positions),
            Pointer(match.view("q_starts")),
            Pointer(page_table),
            Pointer(real_rows(match)),
            Pointer(scratch.latent),
            Scalar("i64", selection.strides[0]),
            Scalar("i64", q_pe.strides[0]),
            Scalar("i64", q_pe.strides[1]),
            Scalar("i64", page_tokens * row_bytes(form.layout, RANKS)),
            Scalar("i64", page_table.strides[0]),
            i32(rows),
            i32(heads),
            i32(_keys(match)),
            i32(page_table.shape[0]),
            i32(form.splits),
            f32(float(match.attr("op", "scale"))),
        ),
        shared_bytes=form.shared_bytes,
        cluster=(form.splits, 1, 1),
        op=name,
    )
    absorb = absorb_launch(match, knobs, scratch.query, name)
    return absorb, attend, *end.leave(match, knobs, scratch.latent, carver, name)


_WHEN = (
    fact("matrix_units", "wgmma")
    & fact_at_least("cluster_blocks", max(_SPLITS))
    & fact("wide_products", True)
    & dtype("q_nope", "bf16")
    & dtype("q_pe", "bf16")
    & plain("kv_b")
    & dtype("kv_b", "bf16")
    & layout("cache_in", *FORMATS)
    & has_ranks()
    & axis_at_most("q_nope", 0, _MAX_ROWS)
    & of_rows("q_nope")
)
_KNOBS = (
    Knob("block_heads", (0, 16, 32, 64)),
    Knob("splits", (0, *_SPLITS)),
    Knob("query_parts", (0, 1, 2)),
)


def _lowering(name: str, attention: Region, dense: bool, end: End) -> Lowering:
    name += end.suffix
    return Lowering(
        name=name,
        pattern=end.region(attention),
        emit=lambda match, knobs: _emit(match, knobs, name, dense, end),
        when=_WHEN & end.when,
        knobs=(*_KNOBS, ABSORB_KNOB) if end is PLAIN else _KNOBS,
        workspace=partial(_workspace, end=end),
        zeroed=lambda match, knobs: end.zeroed(match),
        work=partial(_work, end=end),
    )


SPARSE = tuple(
    _lowering("sm90_sparse_mla", Region.single(AttendOp), dense=False, end=end) for end in ENDS
)
SPARSE_ALL = tuple(
    _lowering("sm90_sparse_mla_all", ATTEND_ALL_REGION, dense=True, end=end) for end in ENDS
)
SPARSE_MLA, SPARSE_MLA_ALL = SPARSE[0], SPARSE_ALL[0]
