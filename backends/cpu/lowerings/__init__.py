"""The CPU's own lowerings and portable's."""

from __future__ import annotations

from lostwax.backends.cpu.lowerings.attention import CPU_ATTENTION
from lostwax.backends.cpu.lowerings.experts import CPU_EXPERTS
from lostwax.backends.cpu.lowerings.native_attention import NATIVE_ATTENTION
from lostwax.backends.cpu.lowerings.native_expanded import NATIVE_EXPANDED
from lostwax.backends.cpu.lowerings.native_heads import NATIVE_HEADS
from lostwax.backends.cpu.lowerings.native_lookup import NATIVE_LOOKUP
from lostwax.backends.cpu.lowerings.native_products import NATIVE_PRODUCTS
from lostwax.backends.cpu.lowerings.native_quantise import NATIVE_QUANTISE
from lostwax.backends.cpu.lowerings.native_rope import NATIVE_ROPE
from lostwax.backends.cpu.lowerings.native_rows import NATIVE_ROWS
from lostwax.backends.cpu.lowerings.row_by_row import CPU_ROW_BY_ROW
from lostwax.backends.lowering import Lowering
from lostwax.backends.portable.lowerings import lowerings as portable
from lostwax.ir.contract.target import Target


def lowerings(target: Target) -> tuple[Lowering, ...]:
    """What plans for this target choose from."""
    rows = (*NATIVE_LOOKUP, *NATIVE_ROPE, *NATIVE_ROWS, *NATIVE_QUANTISE, *NATIVE_HEADS)
    return (
        *NATIVE_ATTENTION,
        *NATIVE_EXPANDED,
        *NATIVE_PRODUCTS,
        *rows,
        *CPU_ATTENTION,
        *CPU_EXPERTS,
        *CPU_ROW_BY_ROW,
        *portable(target),
    )
