"""The indexer's logits over paged keys, fp8 or bf16, on Hopper's matrix units
(`kernels/index_logits.cu`).

A row of the step and its request's keys meet in tiles of rows; pages of all tiles are cut into
equal parts once a step, one a unit, by `kernels/index_tiles.cu`. Knows no device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import msgspec

from lostwax.backends.gpu_kernels.lowerings.index_logits import INDEX_WHEN, RowTile, columns
from lostwax.backends.gpu_kernels.lowerings.launches import f32, i32, is_aligned, real_rows
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.predicates import Predicate, axis_at_most, dtype, fact, layout
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.kernel import SHARED_BYTES, KernelSource
from lostwax.ir.contract.parameter import Null, Pointer, Scalar, TensorMap
from lostwax.ir.contract.program import KernelLaunch, Launch, View
from lostwax.ir.contract.step_kernel import StepKernel
from lostwax.ir.dialects.dsa import IndexLogitsOp
from lostwax.ir.region import Region

_HEADS, _DIM, _PAGE = 64, 128, 64
_BOX_BYTES = 128  # a box's row: what the swizzle takes
_SCALE_ROWS = 2  # of 128 bytes behind a page's fp8 keys: 64 scales of 4 bytes
_SWIZZLE_BORDER = 1024  # bytes; where boxes begin
_MOST_STAGES = 12  # more bytes under way than memory answers to
_LEAST_STAGES = 6  # before a second tile of queries takes room
_BARRIER_BYTES = 16  # a place's two
_MAX_REQS = 1024  # a thread of index_tiles.cu each
_TILES_WARPS = 32
_REGISTERS = {2: (40, 232), 3: (32, 160), 4: (32, 112)}
"""Of a loading and of a scoring thread, by scoring warpgroups: 64 Ki of a unit together."""

_TILE_INTS, _START_INTS = 4, 2

_SHARE = {"f8E4M3FN": 0.8, "bf16": 0.84}
"""Of the target's rate, counted over the keys that rows see: prompts of 1,024 and 2,048 rows reach
0.79 to 0.83 of it in fp8 (over 4k to 64k), 0.82 to 0.85 in bf16 (behind 2k to 6k). Decode reads
keys at 4.05 to 4.14 TB/s: bytes decide there. At no size the kernel of all GPUs was faster.
`python benchmarks/op.py run FOLDER --ops index,index_bf16`, an H200, 2026-11-29
(benchmarks/results/2026-11-29-h200-index.json, 2026-11-29-h200-index-bf16.json)."""

_LIST_US = 5.7
"""A list of tiles: `ours whole` less `ours` of both files, in the mean of 16 to 128 requests of a
row (4.8 to 7.3) and of prompts of 256 rows. One request takes as long (5.4) since each thread
writes where a unit begins: `ours` of 2026-11-30-h200-index.json less that above."""


@dataclass(frozen=True, slots=True)
class IndexForm:
    """`row_groups` warpgroups take `rows_each` rows each of one page; `key_groups` of such take
    turns over the pages. `most_stages` 0 takes as many as fit, up to 12. `element_bytes` of keys
    and queries: 1 e4m3, 2 bf16. `room_bytes`: of shared memory, that a block of the target may
    take; `choose_form` puts it into one of FORMS."""

    rows_each: int
    row_groups: int
    key_groups: int
    most_stages: int = 0
    element_bytes: int = 1
    room_bytes: int = 0

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
    def tiles(self) -> int:
        """Of queries at a time: the next one's come early where there is room for two."""
        room = self.room_bytes - _LEAST_STAGES * self._stage_bytes
        return 2 if 2 * self._tile_bytes <= room else 1

    @property
    def stages(self) -> int:
        """Pages under way: a multiple of the key groups, so that a place is always one group's.
        Else one group could wait for a place while another has not taken its page there: a
        barrier's parity does not tell a page from the second after it."""
        fitting = (self.room_bytes - self._tiles_bytes) // (self._stage_bytes + _BARRIER_BYTES)
        most = min(self.most_stages or _MOST_STAGES, fitting)
        return most - most % self.key_groups

    @property
    def _tile_bytes(self) -> int:
        return self.rows * _HEADS * _DIM * self.element_bytes

    @property
    def _tiles_bytes(self) -> int:
        """With barriers for the queries of each row group."""
        return self.tiles * (self._tile_bytes + _BARRIER_BYTES * self.row_groups)

    @property
    def _stage_bytes(self) -> int:
        scale_rows = _SCALE_ROWS if self.element_bytes == 1 else 0
        page_bytes = _PAGE * _DIM * self.element_bytes + scale_rows * _BOX_BYTES
        return -(-page_bytes // _SWIZZLE_BORDER) * _SWIZZLE_BORDER

    @property
    def shared_bytes(self) -> int:
        """As `index_logits/layout.h` adds it up; the kernel does not compile where they differ."""
        return self._tiles_bytes + self.stages * (self._stage_bytes + _BARRIER_BYTES)

    def constants(self) -> dict[str, int]:
        """The kernel's macros."""
        load, score = _REGISTERS[self.warpgroups]
        return {
            "ELEMENT_BYTES": self.element_bytes,
            "ROWS_EACH": self.rows_each,
            "ROW_GROUPS": self.row_groups,
            "KEY_GROUPS": self.key_groups,
            "TILES": self.tiles,
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


def choose_form(
    rows: int, requests: int, knobs: Knobs, room_bytes: int, element_bytes: int = 1
) -> IndexForm:
    """Tiles as high as requests have rows in the mean, up to 8; knobs have the last word."""
    if knobs["form"]:
        chosen = FORMS[knobs["form"] - 1]
    else:
        each = -(-rows // requests)
        chosen = next((f for f in FORMS[:4] if f.rows >= each), FORMS[3])
    return replace(
        chosen,
        most_stages=knobs["stages"],
        element_bytes=element_bytes,
        room_bytes=room_bytes,
    )


def _form(match: Match, knobs: Knobs) -> IndexForm:
    rows, requests = match.shape("q")[0], match.shape("page_table")[0]
    room, element_bytes = match.target.shared_memory_bytes, DTYPE_BYTES[match.dtype("q")]
    return choose_form(rows, requests, knobs, room, element_bytes)


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
        us=_LIST_US,
    )


def _page_boxes(cache: View) -> TensorMap:
    """A page's boxes: of bytes one, its keys and scales being rows of 128; of bf16 its keys'
    halves."""
    rows, width = _PAGE, _BOX_BYTES // DTYPE_BYTES[cache.dtype]
    if cache.dtype == "u8":
        rows = _PAGE + _SCALE_ROWS
        shape, strides = (cache.shape[0], rows, width), (cache.strides[0], width, 1)
        cache = msgspec.structs.replace(cache, shape=shape, strides=strides)
    return TensorMap(view=cache, box=(1, rows, width), swizzle="128B", l2_promotion="128B")


def _query_boxes(q: View, rows_each: int) -> TensorMap:
    """The queries of so many rows; heads of all rows lie one behind another."""
    rows, heads, dim = q.shape
    if q.strides != (heads * q.strides[1], q.strides[1], 1):
        raise ValueError(f"queries with strides {q.strides} are no rows of heads: write them dense")
    flat = msgspec.structs.replace(q, shape=(rows * heads, dim), strides=q.strides[1:])
    box = (heads * rows_each, _BOX_BYTES // DTYPE_BYTES[q.dtype])
    return TensorMap(view=flat, box=box, swizzle="128B", l2_promotion="128B")


def index_launch(
    match: Match, knobs: Knobs, out: View, tile: RowTile, scale: float, op: str
) -> KernelLaunch:
    """The launch that writes the logits of a tile of rows to `out` [tile.count, columns] f32."""
    form, lists = _form(match, knobs), _Lists.of(tile)
    q_scale = match.view("q:scale") if match.is_scaled("q") else None
    weights, table = match.view("weights"), match.view("page_table")
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
            Pointer(q_scale) if q_scale else Null(),
            Pointer(weights),
            Pointer(match.view("positions")),
            Pointer(table),
            Pointer(match.step(lists.tiles)),
            Pointer(match.step(lists.starts)),
            Pointer(real_rows(match)),
            Pointer(out),
            Scalar("i64", q_scale.strides[0] if q_scale else 0),
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
    return replace(work, flops=work.flops / _SHARE[match.dtype("q")])


def _all_rows(match: Match) -> RowTile:
    return RowTile(0, match.shape("q")[0])


def _prepare(match: Match, knobs: Knobs) -> tuple[StepKernel, ...]:
    return (list_tiles(match, knobs, _all_rows(match)),)


def _emit(match: Match, knobs: Knobs, name: str) -> tuple[Launch, ...]:
    scale = float(match.attr("op", "scale"))
    return (index_launch(match, knobs, match.view("op.out"), _all_rows(match), scale, name),)


def _sizes(match: Match) -> str | None:
    heads, dim = match.shape("q")[1:]
    tokens = match.shape("cache_in")[1]
    if (heads, dim, tokens) == (_HEADS, _DIM, _PAGE):
        return None
    return f"{heads} heads of {dim} over pages of {tokens}, wants 64 of 128 over pages of 64"


_WHEN = (
    fact("matrix_units", "wgmma")
    & fact("tensor_maps", True)
    & INDEX_WHEN
    & Predicate(_sizes)
    & axis_at_most("page_table", 0, _MAX_REQS)
)
INDEX_FP8_WHEN = dtype("q", "f8E4M3FN") & layout("cache_in", "index_paged") & _WHEN
INDEX_BF16_WHEN = dtype("q", "bf16") & layout("cache_in", "bf16") & _WHEN


def _lowering(name: str, when: Predicate) -> Lowering:
    return Lowering(
        name=name,
        pattern=Region.single(IndexLogitsOp),
        emit=partial(_emit, name=name),
        when=when,
        knobs=INDEX_KNOBS,
        prepare=_prepare,
        row_invariant=True,
        work=index_work,
    )


FP8_INDEX_LOGITS = _lowering("sm90_fp8_index_logits", INDEX_FP8_WHEN)
BF16_INDEX_LOGITS = _lowering("sm90_bf16_index_logits", INDEX_BF16_WHEN)
