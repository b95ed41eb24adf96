"""Lowerings of kv.append by CANN's scatter."""

from __future__ import annotations

from lostwax.backends import predicates as P
from lostwax.backends.ascend.contract.rule import Call, Described
from lostwax.backends.ascend.lowerings.keeps import KERNELS, keeps
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.portable.lowerings.calls import Emit, launch, torch_calls
from lostwax.backends.portable.lowerings.prepared import wide_slots
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.program import Launch
from lostwax.ir.dialects.kv import AppendOp
from lostwax.ir.region import Region


def _call(match: Match) -> Call:
    pages, page_tokens, _ = match.shape("cache_in")
    rows, width = match.bucket.tokens, match.parts("cache_in")[0]
    tensors = {
        "input": Described("bf16", (pages * page_tokens, width)),
        "indices": Described("i64", (rows, 1)),
        "updates": Described("bf16", (rows, width)),
    }
    return Call(tensors)


def _one_part(match: Match) -> str | None:
    parts = match.parts("cache_in")
    return None if len(parts) == 1 else f"rows of {len(parts)} parts side by side are no one tensor"


def _emit(name: str, function: str) -> Emit:
    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        views = (match.view("cache_in"), match.step("wide_slots"), *match.views("rows"))
        return launch(name, f"{KERNELS}cache:{function}", views)

    return emit


def _append(name: str, function: str, when: Predicate) -> Lowering:
    return Lowering(
        name=name,
        pattern=Region.single(AppendOp),
        emit=_emit(name, function),
        when=when & keeps("npu_scatter_nd_update_", _call),
        row_invariant=True,
        prepare=wide_slots,
        work=torch_calls(2),
        allocates=lambda match, knobs: 4 * match.bucket.tokens * sum(match.parts("cache_in")),
    )


CACHE = (
    _append("ascend_append", "append", P.layout("cache_in", "bf16") & Predicate(_one_part)),
    _append("ascend_append_apart", "append_apart", P.layout("cache_in", "bf16_apart")),
)
