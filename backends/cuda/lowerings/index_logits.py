"""The indexer's logits over paged fp8 keys on Hopper's matrix units (`kernels/index_logits.cu`).

A row of the step and its request's keys meet in tiles of rows; pages of all tiles are cut into
equal parts once a step, one a unit, by `kernels/index_tiles.cu`. Knows no device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from lostwax.backends.gpu_kernels.lowerings.index_logits import INDEX_WHEN, RowTile, columns
from lostwax.backends.gpu_kernels.lowerings.launches import f32, i32, is_aligned, real_rows
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.predicates import Predicate, axis_at_most, dtype, fact, layout
from lostwax.ir.contract.kernel import SHARED_BYTES, KernelSource
from lostwax.ir.contract.parameter import Pointer, Scalar, TensorMap
from lostwax.ir.contract.program import KernelLaunch, Launch, View
from lostwax.ir.contract.step_kernel import StepKernel
from lostwax.ir.dialects.dsa import IndexLogitsOp
from lostwax.ir.region import Region

NAME = "sm90_fp8_index_logits"

_HEADS, _DIM, _PAGE = 64, 128, 64
_PAGE_ROWS = 66  # of 128 bytes: 64 keys, then 64 scales of 4 bytes
_STAGE_BYTES = 9216  # a page, at the next border of 1,024 bytes
_MOST_STAGES = 12  # more bytes under way than memory answers to
_SHARED_BYTES = 232448  # a block's at most, on Hopper
_MAX_REQS = 1024  # a thread of index_tiles.cu each
_TILES_WARPS = 32
_REGISTERS = {2: (40, 232), 3: (32, 160), 4: (32, 112)}
"""Of a loading and of a scoring thread, by scoring warpgroups: 64 Ki of a unit together."""

_TILE_INTS, _START_INTS = 4, 2

_SHARE = 0.8
"""Of the target's fp8 rate: prompts of 1,024 and 2,048 rows over 4k to 64k reach 0.79 to 0.83 of
it, counted over the keys that rows see (`python benchmarks/op.py run --ops index`, an H200,
2026-11-29, benchmarks/results/2026-11-29-h200-index.json). Decode reads keys at 4.05 TB/s: bytes
decide there."""


@dataclass(frozen=True, slots=True)
class IndexForm:
    """`row_groups` warpgroups take `rows_each` rows each of one page; `key_groups` of such take
    turns over the pages. `stages` 0 takes as many as fit, up to 12."""

    rows_each: int
    row_groups: int
    key_groups: int
    most_stages: int = 0

    @property
    def rows(self) -> int:
        """Of a tile: its keys are read once for all of them."""
        return self.rows_each * self.row_groups

    @property
    def warpgroups(self) -> int:
        """Those that score."""
        return self.row_groups * self.key_groups

    @property
    def threads(self) -> int:
        """Of a CTA: one warpgroup more loads."""
        return 128 * (self.warpgroups + 1)

    @property
    def stages(self) -> int:
        """Pages under way: a multiple of the key groups, so that a place is always one group's.
        Else one group could wait for a place while another has not taken its page there: a
        barrier's parity does not tell a page from the second after it."""
        fitting = (_SHARED_BYTES - self._tiles_bytes - 32) // (_STAGE_BYTES + 16)
        most = min(self.most_stages or _MOST_STAGES, fitting)
        return most - most % self.key_groups

    @property
    def _tiles_bytes(self) -> int:
        return 2 * self.rows * _HEADS * _DIM

    @property
    def shared_bytes(self) -> int:
        """As `index_logits/layout.h` adds it up; the kernel does not compile where they differ."""
        return self._tiles_bytes + self.stages * _STAGE_BYTES + 16 * (self.stages + 2)

    def constants(self) -> dict[str, int]:
        """The kernel's macros."""
        load, score = _REGISTERS[self.warpgroups]
        return {
            "ROWS_EACH": self.rows_each,
            "ROW_GROUPS": self.row_groups,
            "KEY_GROUPS": self.key_groups,
            "STAGES": self.stages,
            "LOAD_REGISTERS": load,
            "SCORE_REGISTERS": score,
            SHARED_BYTES: self.shared_bytes,
        }


FORMS = (
    IndexForm(1, 1, 4),
    IndexForm(2, 1, 4),
    IndexForm(2, 2, 2),
    IndexForm(2, 4, 1),
    IndexForm(1, 1, 2),
    IndexForm(1, 1, 3),
    IndexForm(4, 1, 2),
    IndexForm(4, 2, 1),
    IndexForm(2, 3, 1),
)
"""By the knob `form` less one; the first four are the rule's, by the rows of a request."""

INDEX_KNOBS = (
    Knob("form", tuple(range(len(FORMS) + 1))),
    Knob("stages", (0, 4, 8)),
)


def choose_form(rows: int, requests: int, knobs: Knobs) -> IndexForm:
    """Tiles as high as requests have rows in the mean, up to 8; knobs have the last word."""
    if knobs["form"]:
        chosen = FORMS[knobs["form"] - 1]
    else:
        each = -(-rows // requests)
        chosen = next((f for f in FORMS[:4] if f.rows >= each), FORMS[3])
    return replace(chosen, most_stages=knobs["stages"])


def _form(match: Match, knobs: Knobs) -> IndexForm:
    return choose_form(match.shape("q")[0], match.shape("page_table")[0], knobs)


@dataclass(frozen=True, slots=True)
class _Lists:
    """Names of what `index_tiles` lists for a tile of the step's rows."""

    tiles: str
    starts: str

    @staticmethod
    def of(tile: RowTile) -> _Lists:
        return _Lists(f"index_row_tiles.{tile.first}", f"index_starts.{tile.first}")


def list_tiles(match: Match, knobs: Knobs, tile: RowTile) -> StepKernel:
    """What lists once a step who scores which of a tile's rows, for `index_launch`."""
    requests, pages = match.shape("page_table")
    units, form, lists = match.target.compute_units, _form(match, knobs), _Lists.of(tile)
    most = min(tile.count, tile.count // form.rows + requests)
    return StepKernel(
        source=KernelSource(
            language="cuda",
            path="index_tiles.cu",
            symbol="index_tiles",
            constants={"ROWS": form.rows, "CTAS": units},
            num_warps=_TILES_WARPS,
        ),
        arguments=(
            "positions",
            "q_starts",
            "num_rows",
            lists.tiles,
            lists.starts,
            i32(tile.first),
            i32(tile.count),
            i32(requests),
            i32(pages),
        ),
        outputs=(
            (lists.tiles, "i32", (most, _TILE_INTS)),
            (lists.starts, "i32", (units + 1, _START_INTS)),
        ),
        grid=(1, 1, 1),
    )


def _page_boxes(cache: View) -> TensorMap:
    """A page is one box: its keys and scales are rows of 128 bytes."""
    shape, strides = (cache.shape[0], _PAGE_ROWS, _DIM), (cache.strides[0], _DIM, 1)
    rows = msgspec.structs.replace(cache, shape=shape, strides=strides)
    return TensorMap(view=rows, box=(1, _PAGE_ROWS, _DIM), swizzle="128B", l2_promotion="128B")


def _query_boxes(q: View, rows_each: int) -> TensorMap:
    """The queries of so many rows; heads of all rows lie one behind another."""
    rows, heads, dim = q.shape
    if q.strides != (heads * q.strides[1], q.strides[1], 1):
        raise ValueError(f"queries with strides {q.strides} are no rows of heads: write them dense")
    flat = msgspec.structs.replace(q, shape=(rows * heads, dim), strides=q.strides[1:])
    return TensorMap(view=flat, box=(heads * rows_each, dim), swizzle="128B", l2_promotion="128B")


def index_launch(
    match: Match, knobs: Knobs, out: View, tile: RowTile, scale: float, op: str
) -> KernelLaunch:
    """The launch that writes the logits of a tile of rows to `out` [tile.count, columns] f32."""
    form, lists = _form(match, knobs), _Lists.of(tile)
    q_scale, weights, table = match.view("q:scale"), match.view("weights"), match.view("page_table")
    if not is_aligned(out) or out.strides[0] % 4:
        raise ValueError("logits are written by 16 bytes: let them begin at such borders")
    compiled = match.build(
        KernelSource(
            language="cuda",
            path="index_logits.cu",
            symbol="sm90_index_logits",
            constants=form.constants(),
            num_warps=form.threads // 32,
        )
    )
    return KernelLaunch(
        binary=compiled.binary,
        symbol=compiled.symbol,
        grid=(match.target.compute_units, 1, 1),
        block=(form.threads, 1, 1),
        params=(
            _page_boxes(match.view("cache_in")),
            _query_boxes(match.view("q"), form.rows_each),
            Pointer(q_scale),
            Pointer(weights),
            Pointer(match.view("positions")),
            Pointer(table),
            Pointer(match.step(lists.tiles)),
            Pointer(match.step(lists.starts)),
            Pointer(real_rows(match)),
            Pointer(out),
            Scalar("i64", q_scale.strides[0]),
            Scalar("i64", weights.strides[0]),
            Scalar("i64", table.strides[0]),
            Scalar("i64", out.strides[0]),
            i32(tile.first),
            i32(tile.count),
            i32(columns(match)),
            f32(scale),
        ),
        shared_bytes=form.shared_bytes,
        op=op,
    )


def index_work(match: Match, knobs: Knobs) -> Work:
    """The region's own: keys come from memory once, tiles behind the first find them in L2."""
    work = match.work()
    return replace(work, flops=work.flops / _SHARE)


def _all_rows(match: Match) -> RowTile:
    return RowTile(0, match.shape("q")[0])


def _prepare(match: Match, knobs: Knobs) -> tuple[StepKernel, ...]:
    return (list_tiles(match, knobs, _all_rows(match)),)


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    scale = float(match.attr("op", "scale"))
    return (index_launch(match, knobs, match.view("op.out"), _all_rows(match), scale, NAME),)


def _sizes(match: Match) -> str | None:
    heads, dim = match.shape("q")[1:]
    tokens = match.shape("cache_in")[1]
    if (heads, dim, tokens) == (_HEADS, _DIM, _PAGE):
        return None
    return f"{heads} heads of {dim} over pages of {tokens}, wants 64 of 128 over pages of 64"


INDEX_FP8_WHEN = (
    fact("matrix_units", "wgmma")
    & fact("tensor_maps", True)
    & INDEX_WHEN
    & dtype("q", "f8E4M3FN")
    & layout("cache_in", "index_paged")
    & Predicate(_sizes)
    & axis_at_most("page_table", 0, _MAX_REQS)
)

FP8_INDEX_LOGITS = Lowering(
    name=NAME,
    pattern=Region.single(IndexLogitsOp),
    emit=_emit,
    when=INDEX_FP8_WHEN,
    knobs=INDEX_KNOBS,
    prepare=_prepare,
    row_invariant=True,
    work=index_work,
)
