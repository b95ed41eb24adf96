"""FlashMLA over a selection, under the names that SGLang gives its kernels. Chosen by name only.

Between our own launches (`attend_call`) one host call runs the library's kernels: `flashmla_kv`
over fp8_656 caches, `flashmla_sparse` over bf16 ones. Knows no device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from lostwax.backends.cuda.flash_mla_calls import HEADS, PACKAGE, padded_heads
from lostwax.backends.gpu_kernels.lowerings.absorbed import ABSORB_KNOB
from lostwax.backends.gpu_kernels.lowerings.attend_call import BF16_WHEN, AttendCall
from lostwax.backends.gpu_kernels.lowerings.ranks import LATENT, RANKS
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.predicates import Predicate, axis_at_most, axis_multiple, fact, layout
from lostwax.ir.dialects.mla import AttendOp
from lostwax.ir.region import Region

_KERNELS = "lostwax.backends.cuda.kernels.flash_mla"
_PAGE = 64
_MAX_ROWS = 8192  # one thread of the library plans so many in shared memory
_LAUNCHES, _KEY_BYTES = 8, 8


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


def _allocates(match: Match, knobs: Knobs, form: _Form) -> int:
    """Query and result of all padded heads, two statistics; in splits, one more of each in f32."""
    rows, heads, _ = match.shape("q_nope")
    padded = padded_heads(heads)
    units = match.target.compute_units
    num_bytes = rows * padded * (2 * (sum(RANKS) + LATENT) + 2 * 4)
    if form.has_splits:
        num_bytes += 4 * (rows + units) * padded * (LATENT + 1) + 32 * units + 4 * (rows + 1)
    return num_bytes


def _has_pages(match: Match) -> str | None:
    got = match.shape("cache_in")[1]
    return None if got == _PAGE else f"pages of {got} tokens, wants {_PAGE}"


def _lowering(form: _Form) -> Lowering:
    when = (
        fact("matrix_units", "wgmma")
        & fact("wide_products", True)
        & BF16_WHEN
        & layout("cache_in", form.cache)
        & Predicate(_has_pages)
        & axis_at_most("q_nope", 1, max(HEADS))
        & axis_multiple("selection", 1, form.keys)
        & axis_at_most("q_nope", 0, _MAX_ROWS)
    )
    call = AttendCall(form.name, f"{_KERNELS}:{form.function}", _LAUNCHES, _KEY_BYTES)
    return Lowering(
        name=form.name,
        pattern=Region.single(AttendOp),
        emit=call.emit,
        when=when,
        knobs=(ABSORB_KNOB,),
        workspace=call.workspace,
        allocates=partial(_allocates, form=form),
        work=call.work,
        requires=(PACKAGE,),
        by_name=True,
    )


FLASH_MLA = (_lowering(_KV), _lowering(_SPARSE))
