"""Attention in the expanded form to a selection of keys, for prompts of a few times index_topk.

All keys of the contexts are expanded and multiplied, as in `causal_mha.py`; those that a row did
not select count for nothing, by a bit each, which a launch of its own makes of the positions once a
layer. A pair of a row and a key takes 640 operations a head, in the absorbed form 2,176: so up to
a few times as many keys as are selected this is the faster way to the same result
(`selection_times.py`). Knows no device.
"""

from __future__ import annotations

from lostwax.backends.cuda.lowerings.expanded_mha import (
    KNOBS,
    WHEN,
    Attention,
    MhaForm,
    carve,
    launches,
    prepare,
)
from lostwax.backends.cuda.lowerings.selection_times import most_contexts
from lostwax.backends.gpu_kernels.lowerings.expanded import (
    LEAST_TOKENS,
    context_rows,
    expanded_work,
    longest_context,
    selects_some,
)
from lostwax.backends.gpu_kernels.lowerings.launches import Carver, i32, real_rows
from lostwax.backends.lowering import Knobs, Lowering, Match, Work
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.kernel import SHARED_BYTES, KernelSource
from lostwax.ir.contract.parameter import Pointer, Scalar
from lostwax.ir.contract.program import KernelLaunch, Launch, View
from lostwax.ir.dialects.mla import AttendOp
from lostwax.ir.region import Region

NAME = "sm90_masked_mha"

_TILE_KEYS, _TILE_WORDS = 128, 4  # kernels/masked_mha/bits.h
_BITS_THREADS = 128


def _carve_bits(match: Match, carver: Carver) -> View:
    """A row's bits are whole tiles of keys."""
    words = -(-longest_context(match) // _TILE_KEYS) * _TILE_WORDS
    return carver.take("i32", match.shape("q_nope")[0], words)


def _workspace(match: Match, knobs: Knobs) -> int:
    carver = Carver(None)
    carve(match, knobs, carver)
    _carve_bits(match, carver)
    return carver.num_bytes


def _work(match: Match, knobs: Knobs) -> Work:
    """Of contexts in the middle of those that are not selected whole and that the guard admits."""
    rows, selected = match.shape("selection")
    most = context_rows(match)
    contexts = (min(selected, most) + most) // 2
    work = expanded_work(match, knobs, contexts, min(contexts, longest_context(match)))
    bits = Carver(None)
    _carve_bits(match, bits)
    moved = work.num_bytes + 4 * rows * selected + 2 * bits.num_bytes
    return Work(moved, work.flops, work.launches + 1)


def _set_bits(match: Match, bits: View) -> KernelLaunch:
    selection, (rows, words) = match.view("selection"), bits.shape
    compiled = match.build(
        KernelSource(
            language="cuda",
            path="selection_bits.cu",
            symbol="selection_bits",
            constants={SHARED_BYTES: 4 * words},
            num_warps=_BITS_THREADS // 32,
        )
    )
    return KernelLaunch(
        binary=compiled.binary,
        symbol=compiled.symbol,
        grid=(rows, 1, 1),
        block=(_BITS_THREADS, 1, 1),
        params=(
            Pointer(selection),
            Pointer(real_rows(match)),
            Pointer(bits),
            Scalar("i64", selection.strides[0]),
            i32(selection.shape[1]),
            i32(words),
        ),
        shared_bytes=4 * words,
        op=NAME,
    )


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    carver = Carver(match.workspace)
    scratch, bits = carve(match, knobs, carver), _carve_bits(match, carver)
    form = MhaForm(_TILE_KEYS, bool(knobs["take_turns"]))
    attention = Attention(NAME, form, bits, (i32(bits.shape[1]),))
    return (_set_bits(match, bits), *launches(match, knobs, attention, scratch))


def _contexts(rows: int, heads: int) -> int:
    return 0 if rows < LEAST_TOKENS else most_contexts(rows, heads)


def _is_faster() -> Predicate:
    """Contexts have together no more positions than it is the faster form for."""

    def refusal(match: Match) -> str | None:
        rows, heads, _ = match.shape("q_nope")
        contexts, most = context_rows(match), _contexts(rows, heads)
        if contexts <= most:
            return None
        return (
            f"contexts of {contexts} positions together, wants <= {most}: with more the absorbed"
            f" form is faster for {rows} rows of {heads} heads"
        )

    return Predicate(refusal)


MASKED_MHA = Lowering(
    name=NAME,
    pattern=Region.single(AttendOp),
    emit=_emit,
    when=WHEN & selects_some() & _is_faster(),
    knobs=KNOBS,
    prepare=prepare,
    workspace=_workspace,
    work=_work,
    selecting_contexts=_contexts,
)
