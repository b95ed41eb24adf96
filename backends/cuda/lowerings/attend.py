"""Absorbed MLA with keys split over programs, sparse or over all visible keys. Knows no device."""

from __future__ import annotations

from dataclasses import dataclass

from lostwax.backends.cuda.launches import Carver, f32, i32, next_power_of_two, triton_launch
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.predicates import Predicate, dtype, layout, plain
from lostwax.ir.contract.program import HostCall, Launch, View
from lostwax.ir.dialects.mla import AttendOp
from lostwax.ir.region import Node, Region

_KERNELS = "lostwax.backends.gpu_kernels.sparse_attention"
_ABSORB = "lostwax.backends.cuda.kernels.absorb"
_MIN_DOT = 16  # the matrix units' smallest side
_MAX_LATENT = 512  # a block of heads accumulates the whole latent row in registers
_NUM_LAUNCHES = 4

ATTEND_ALL_REGION = Region(
    {
        "selection": Node("dsa.all", {"positions": "positions"}),
        "op": Node(
            "mla.attend",
            {
                "q_nope": "q_nope",
                "q_pe": "q_pe",
                "kv_b": "kv_b",
                "cache_in": "cache_in",
                "selection": "selection",
                "positions": "positions",
                "q_starts": "q_starts",
                "page_table": "page_table",
            },
        ),
    },
    outputs=("op.out",),
)


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """How one row's keys are cut: `splits` programs of `split_keys` keys, the last maybe less."""

    keys: int
    splits: int
    split_keys: int

    @staticmethod
    def of(keys: int, programs: int, block_keys: int, wanted: int, compute_units: int) -> SplitPlan:
        """About one program a compute unit; `wanted` 0 decides by that, else asks for so many."""
        blocks = -(-keys // block_keys)
        filling = max(compute_units // programs, 2 if programs <= compute_units else 1)
        split_blocks = -(-blocks // min(blocks, wanted or filling))
        return SplitPlan(keys, -(-blocks // split_blocks), split_blocks * block_keys)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What the kernels are specialised for."""

    rows: int
    heads: int
    latent: int
    rope: int
    page_tokens: int
    block_heads: int
    block_keys: int
    plan: SplitPlan

    @staticmethod
    def of(match: Match, knobs: Knobs) -> _Sizes:
        rows, heads, _ = match.shape("q_nope")
        latent, rope = match.parts("cache_in")
        pages, page_tokens, _ = match.shape("cache_in")
        keys = min(match.shape("selection")[1], pages * page_tokens)
        programs = rows * -(-heads // knobs["block_heads"])
        plan = SplitPlan.of(
            keys, programs, knobs["block_keys"], knobs["splits"], match.target.compute_units
        )
        return _Sizes(
            rows, heads, latent, rope, page_tokens, knobs["block_heads"], knobs["block_keys"], plan
        )


@dataclass(frozen=True, slots=True)
class _Scratch:
    """Tensors of the workspace. `latent` holds the absorbed query, later the attended latents."""

    latent: View
    partial: View
    partial_max: View
    partial_sum: View
    num_bytes: int

    @staticmethod
    def of(sizes: _Sizes, dtype: str, workspace: View | None) -> _Scratch:
        carver = Carver(workspace)
        outer = (sizes.rows, sizes.heads, sizes.plan.splits)
        latent = carver.take(dtype, sizes.heads, sizes.rows, sizes.latent)
        partial = carver.take("f32", *outer, sizes.latent)
        partial_max, partial_sum = carver.take("f32", *outer), carver.take("f32", *outer)
        return _Scratch(latent, partial, partial_max, partial_sum, carver.num_bytes)


def _workspace(match: Match, knobs: Knobs) -> int:
    return _Scratch.of(_Sizes.of(match, knobs), match.dtype("q_nope"), None).num_bytes


def _work(match: Match, knobs: Knobs) -> Work:
    base = match.work()
    sizes = _Sizes.of(match, knobs)
    partial = 2 * 4 * sizes.rows * sizes.heads * sizes.plan.splits * sizes.latent
    return Work(base.num_bytes + partial, base.flops, _NUM_LAUNCHES)


def _emit(match: Match, knobs: Knobs, name: str, dense: bool) -> tuple[Launch, ...]:
    sizes = _Sizes.of(match, knobs)
    plan = sizes.plan
    scratch = _Scratch.of(sizes, match.dtype("q_nope"), match.workspace)
    q_nope, q_pe, kv_b = match.view("q_nope"), match.view("q_pe"), match.view("kv_b")
    cache, page_table = match.view("cache_in"), match.view("page_table")
    selection = match.view("positions" if dense else "selection")
    wide = not (match.dtype("q_nope") == match.layout("cache_in") == "bf16")
    reqs = match.shape("page_table")[0]
    split = triton_launch(
        match,
        f"{_KERNELS}:attend_split",
        {
            "query": scratch.latent,
            "query_rope": q_pe,
            "cache": cache,
            "selection": selection,
            "q_starts": match.view("q_starts"),
            "page_table": page_table,
            "partial": scratch.partial,
            "partial_max": scratch.partial_max,
            "partial_sum": scratch.partial_sum,
            "num_rows": i32(sizes.rows),
            "selection_stride": i32(selection.strides[0]),
            "rope_row_stride": i32(q_pe.strides[0]),
            "rope_head_stride": i32(q_pe.strides[1]),
            "page_stride": i32(cache.strides[0]),
            "token_stride": i32(cache.strides[1]),
            "page_table_stride": i32(page_table.strides[0]),
            "scale": f32(float(match.attr("op", "scale"))),
        },
        {
            "HEADS": sizes.heads,
            "LATENT": sizes.latent,
            "ROPE": sizes.rope,
            "PAGE": sizes.page_tokens,
            "KEYS": plan.keys,
            "REQS": reqs,
            "SPLITS": plan.splits,
            "SPLIT_KEYS": plan.split_keys,
            "BLOCK_HEADS": sizes.block_heads,
            "BLOCK_KEYS": sizes.block_keys,
            "BLOCK_LATENT": max(_MIN_DOT, next_power_of_two(sizes.latent)),
            "BLOCK_ROPE": max(_MIN_DOT, next_power_of_two(sizes.rope)),
            "BLOCK_REQS": next_power_of_two(reqs),
            "DENSE": int(dense),
            "WIDE_DOT": int(wide),
        },
        grid=(sizes.rows, plan.splits, -(-sizes.heads // sizes.block_heads)),
        op=name,
        num_warps=knobs["num_warps"],
        num_stages=knobs["num_stages"],
    )
    combine = triton_launch(
        match,
        f"{_KERNELS}:attend_combine",
        {
            "partial": scratch.partial,
            "partial_max": scratch.partial_max,
            "partial_sum": scratch.partial_sum,
            "out": scratch.latent,
            "num_rows": i32(sizes.rows),
        },
        {
            "HEADS": sizes.heads,
            "LATENT": sizes.latent,
            "SPLITS": plan.splits,
            "BLOCK_SPLITS": next_power_of_two(plan.splits),
            "BLOCK_LATENT": next_power_of_two(sizes.latent),
        },
        grid=(sizes.rows, sizes.heads, 1),
        op=name,
    )
    return (
        HostCall(function=f"{_ABSORB}:absorb_query", args=(q_nope, kv_b, scratch.latent), op=name),
        split,
        combine,
        HostCall(
            function=f"{_ABSORB}:expand_values",
            args=(scratch.latent, kv_b, match.view("op.out")),
            op=name,
        ),
    )


def _same_dtype(value: str, other: str) -> Predicate:
    def refusal(match: Match) -> str | None:
        got, wanted = match.dtype(value), match.dtype(other)
        return None if got == wanted else f"{value} is {got}, {other} is {wanted}: wants them equal"

    return Predicate(refusal)


def _latent_at_most(bound: int) -> Predicate:
    def refusal(match: Match) -> str | None:
        rank = match.parts("cache_in")[0]
        return None if rank <= bound else f"latent rank is {rank}, wants <= {bound}"

    return Predicate(refusal)


_WHEN = (
    dtype("q_nope", "f32", "bf16")
    & plain("kv_b")
    & _same_dtype("kv_b", "q_nope")
    & layout("cache_in", "f32", "bf16")
    & _latent_at_most(_MAX_LATENT)
)
_KNOBS = (
    Knob("splits", (0, 1, 2, 4, 8, 16, 32, 64)),
    Knob("block_keys", (32, 16, 64)),
    Knob("block_heads", (16, 32, 64)),
    Knob("num_warps", (4, 8)),
    Knob("num_stages", (2, 1, 3)),
)

ATTEND = Lowering(
    name="smxx_mla_attend_splitkv",
    pattern=Region.single(AttendOp),
    emit=lambda match, knobs: _emit(match, knobs, "smxx_mla_attend_splitkv", dense=False),
    when=_WHEN,
    knobs=_KNOBS,
    workspace=_workspace,
    work=_work,
)

ATTEND_ALL = Lowering(
    name="smxx_mla_attend_all_splitkv",
    pattern=ATTEND_ALL_REGION,
    emit=lambda match, knobs: _emit(match, knobs, "smxx_mla_attend_all_splitkv", dense=True),
    when=_WHEN,
    knobs=_KNOBS,
    workspace=_workspace,
    work=_work,
)
