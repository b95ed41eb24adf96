"""The rules of all native kernels, by symbol."""

from __future__ import annotations

from lostwax.backends.cpu.contract.attention import ATTENTION
from lostwax.backends.cpu.contract.experts import EXPERTS
from lostwax.backends.cpu.contract.indexer import INDEXER
from lostwax.backends.cpu.contract.products import PRODUCTS
from lostwax.backends.cpu.contract.rows import ROWS
from lostwax.backends.cpu.contract.step import STEP

RULES = {
    rule.symbol: rule
    for rule in (
        *ATTENTION,
        *EXPERTS,
        *INDEXER,
        *PRODUCTS,
        *ROWS,
        *STEP,
    )
}
