"""AITER over a selection, under the name that SGLang gives it. Chosen by name only, never run.

Between our own launches (`attend_call`) one host call runs AITER's decode over bf16 rows. Knows no
device.
"""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings.absorbed import ABSORB_KNOB
from lostwax.backends.gpu_kernels.lowerings.attend_call import BF16_WHEN, AttendCall
from lostwax.backends.gpu_kernels.lowerings.ranks import LATENT, RANKS
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.predicates import Predicate, fact, layout
from lostwax.backends.rocm.aiter_calls import HEADS, PACKAGE
from lostwax.ir.dialects.mla import AttendOp
from lostwax.ir.region import Region

_NAME = "aiter"
_MOST_SPLITS = 16  # of a row's keys, by its own rule
_LAUNCHES, _KEY_BYTES = 16, 40
_CALL = AttendCall(
    _NAME, "lostwax.backends.rocm.kernels.aiter:attend_selected", _LAUNCHES, _KEY_BYTES
)


def _allocates(match: Match, knobs: Knobs) -> int:
    """The joined query, the result, f32 partials of all splits, and the list of slots with what it
    is made of."""
    (rows, heads, _), keys = match.shape("q_nope"), match.shape("selection")[1]
    of_heads = rows * heads * (2 * (sum(RANKS) + LATENT) + 4)
    of_splits = 4 * rows * _MOST_SPLITS * heads * (LATENT + 1)
    return of_heads + of_splits + rows * keys * (1 + 8 + 8 + 4) + 64 * (rows + 1)


def _has_heads(match: Match) -> str | None:
    heads = match.shape("q_nope")[1]
    return None if heads in HEADS else f"a rank has {heads} heads, wants 16 or 128"


AITER = Lowering(
    name=_NAME,
    pattern=Region.single(AttendOp),
    emit=_CALL.emit,
    when=fact("matrix_units", "mfma")
    & BF16_WHEN
    & layout("cache_in", "bf16")
    & Predicate(_has_heads),
    knobs=(ABSORB_KNOB,),
    workspace=_CALL.workspace,
    allocates=_allocates,
    work=_CALL.work,
    requires=(PACKAGE,),
    by_name=True,
)
