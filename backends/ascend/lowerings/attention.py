"""Lowerings of attention and of the indexer's selection."""

from __future__ import annotations

from lostwax.backends import predicates as P
from lostwax.backends.ascend.contract.rule import Call, Described
from lostwax.backends.ascend.lowerings.keeps import KERNELS, described, keeps
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.portable.lowerings.attention import DENSE, SPARSE
from lostwax.backends.portable.lowerings.calls import KERNELS as PORTABLE
from lostwax.backends.portable.lowerings.calls import Emit, f32_bytes, launch
from lostwax.backends.portable.lowerings.indexer import INDEX_TOPK
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.program import Const, Launch
from lostwax.ir.contract.step import StepOp
from lostwax.ir.region import Region


def _count(match: Match) -> int:
    """How many requests CANN is told: those of the step and one of padding, or one a row."""
    reqs = match.shape("page_table")[0]
    return reqs + 1 if match.segment == "extend" else match.bucket.tokens


def _groups(match: Match, knobs: Knobs) -> tuple[StepOp, ...]:
    """`ends`, `lengths`, `table`: rows and positions of each request as CANN counts them.

    Only a prefill step's requests have a token in every row.
    """
    count, pages = _count(match), match.shape("page_table")[1]
    outputs = (
        ("ends", "i32", (count,)),
        ("lengths", "i32", (count,)),
        ("table", "i32", (count, pages)),
    )
    if match.segment == "extend":
        consts: dict[str, Const] = {
            "rows": match.bucket.tokens,
            "page_tokens": match.shape("cache_in")[1],
        }
        op = StepOp(
            function=f"{KERNELS}attention:row_groups",
            inputs=("q_starts", "kv_lens", "page_table"),
            outputs=outputs,
            consts=consts,
            allocates=64,
        )
    else:
        reqs = match.shape("page_table")[0]
        op = StepOp(
            function=f"{KERNELS}attention:single_rows",
            inputs=("positions", "q_starts", "page_table"),
            outputs=outputs,
            allocates=count * (4 * pages + 16 * reqs + 64),
        )
    return (op,)


def _groups_and_every(match: Match, knobs: Knobs) -> tuple[StepOp, ...]:
    """The same, and `every`: all visible positions of each row."""
    rows, k = match.bucket.tokens, int(match.attr("all", "k"))
    op = StepOp(
        function=f"{PORTABLE}selection:every",
        inputs=("positions",),
        outputs=(("every", "i32", (rows, k)),),
        allocates=3 * f32_bytes(rows, k),
    )
    return (*_groups(match, knobs), op)


def _lengths(match: Match) -> dict[str, Described]:
    count, pages = _count(match), match.shape("page_table")[1]
    each, table = Described("i32", (count,)), Described("i32", (count, pages))
    return {"actual_seq_lengths_query": each, "block_table": table}


def _attend_call(match: Match, selected: int) -> Call:
    rows, heads, _ = match.shape("q_nope")
    pages, block, _ = match.shape("cache_in")
    rank, rope = match.parts("cache_in")
    keys = Described("bf16", (pages, block, 1, rank))
    lengths = _lengths(match)
    tensors = {
        "query": Described(match.dtype("q_nope"), (rows, heads, rank)),
        "key": keys,
        "value": keys,
        "sparse_indices": Described("i32", (rows, 1, selected)),
        "query_rope": Described(match.dtype("q_pe"), (rows, heads, rope)),
        "key_rope": Described("bf16", (pages, block, 1, rope)),
        "actual_seq_lengths_kv": lengths["actual_seq_lengths_query"],
        **lengths,
    }
    values = {
        "attention_mode": 2,
        "layout_query": "TND",
        "layout_kv": "PA_BSND",
        "sparse_mode": 0,
        "sparse_block_size": 1,
    }
    return Call(tensors, values)


def _index_call(match: Match) -> Call:
    pages, block, width = match.shape("cache_in")
    lengths = _lengths(match)
    tensors = {
        "query": described(match, "q"),
        "key": Described(match.dtype("cache_in"), (pages, block, 1, width)),
        "weights": described(match, "weights"),
        "actual_seq_lengths_key": lengths["actual_seq_lengths_query"],
        **lengths,
    }
    values = {"layout_query": "TND", "layout_key": "PA_BSND", "sparse_mode": 3}
    return Call(tensors, values, {"sparse_count": match.shape("topk")[1]})


def _emit_attend(name: str, node: str, out: str, is_dense: bool) -> Emit:
    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        views = (
            *(match.view(n) for n in ("q_nope", "q_pe", "kv_b", "cache_in")),
            match.step("every") if is_dense else match.view("selection"),
            match.step_input("positions"),
            *(match.step(n) for n in ("ends", "lengths", "table")),
            match.view(out),
        )
        consts = {"scale": match.attr(node, "scale")}
        return launch(name, f"{KERNELS}attention:attend", views, consts)

    return emit


def _scale_is_positive(match: Match) -> str | None:
    scale = float(match.attr("logits", "scale"))
    return None if scale > 0 else f"scale is {scale}, and the operator's order is that of scale 1"


def _emit_index(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    views = (
        *(match.view(n) for n in ("q", "weights", "cache_in", "positions")),
        *(match.step(n) for n in ("ends", "lengths", "table")),
        match.view("topk"),
    )
    return launch("ascend_index_topk", f"{KERNELS}attention:index_topk", views)


def _attend(name: str, pattern: Region, is_dense: bool) -> Lowering:
    node, out = ("attend", "attend") if is_dense else ("op", "op.out")

    def selected(match: Match) -> int:
        return int(match.attr("all", "k")) if is_dense else match.shape("selection")[1]

    def allocates(match: Match, knobs: Knobs) -> int:
        rows, heads, _ = match.shape("q_nope")
        rank, rope = match.parts("cache_in")
        attended = f32_bytes(rows, heads, 2 * rank + rope + match.shape("kv_b")[0] // heads)
        return attended + f32_bytes(rows, selected(match) + 1)

    def work(match: Match, knobs: Knobs) -> Work:
        plain = match.work()
        return Work(plain.num_bytes, plain.flops, 9)

    return Lowering(
        name=name,
        pattern=pattern,
        emit=_emit_attend(name, node, out, is_dense),
        when=P.layout("cache_in", "bf16_apart")
        & P.plain("kv_b")
        & P.dtype("kv_b", "bf16")
        & P.dtype(out, "bf16")
        & keeps("npu_sparse_flash_attention", lambda match: _attend_call(match, selected(match))),
        prepare=_groups_and_every if is_dense else _groups,
        work=work,
        allocates=allocates,
        waiver="bf16_query",
    )


ATTENTION = (
    _attend("ascend_attend", SPARSE, False),
    _attend("ascend_attend_all", DENSE, True),
    Lowering(
        name="ascend_index_topk",
        pattern=INDEX_TOPK,
        emit=_emit_index,
        when=P.plain("q")
        & P.layout("cache_in", "bf16")
        & Predicate(_scale_is_positive)
        & keeps("npu_lightning_indexer", _index_call),
        prepare=_groups,
        work=lambda match, knobs: Work(match.work().num_bytes, match.work().flops, 6),
        allocates=lambda match, knobs: 6 * f32_bytes(*match.shape("topk")),
    ),
)
