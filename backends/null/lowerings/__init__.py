"""Portable's lowerings, planned and never run."""

from __future__ import annotations

from lostwax.backends.lowering import Lowering
from lostwax.backends.portable.lowerings import lowerings as portable
from lostwax.ir.contract.target import Target


def lowerings(target: Target) -> tuple[Lowering, ...]:
    """What plans for this target choose from."""
    return portable(target)
