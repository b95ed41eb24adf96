"""The rules of all native kernels, by symbol."""

from __future__ import annotations

from lostwax.backends.cpu.contract.adjust import ADJUST
from lostwax.backends.cpu.contract.attention import ATTENTION
from lostwax.backends.cpu.contract.expanded import EXPANDED
from lostwax.backends.cpu.contract.experts import EXPERTS
from lostwax.backends.cpu.contract.heads import HEADS
from lostwax.backends.cpu.contract.indexer import INDEXER
from lostwax.backends.cpu.contract.lookup import LOOKUP
from lostwax.backends.cpu.contract.nucleus import NUCLEUS
from lostwax.backends.cpu.contract.products import PRODUCTS
from lostwax.backends.cpu.contract.quantise import QUANTISE
from lostwax.backends.cpu.contract.rope import ROPE
from lostwax.backends.cpu.contract.rows import ROWS
from lostwax.backends.cpu.contract.step import STEP

RULES = {
    rule.symbol: rule
    for rule in (
        *ADJUST,
        *ATTENTION,
        *EXPANDED,
        *EXPERTS,
        *HEADS,
        *INDEXER,
        *LOOKUP,
        *NUCLEUS,
        *PRODUCTS,
        *QUANTISE,
        *ROPE,
        *ROWS,
        *STEP,
    )
}
