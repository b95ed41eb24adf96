"""Which lowerings run on an Ascend NPU: CANN's operators, and the portable ones behind them."""

from __future__ import annotations

from dataclasses import replace

from lostwax.backends.ascend.installed import libraries_behind
from lostwax.backends.ascend.lowerings.attention import ATTENTION
from lostwax.backends.ascend.lowerings.cache import CACHE
from lostwax.backends.ascend.lowerings.elementwise import ELEMENTWISE
from lostwax.backends.ascend.lowerings.experts import EXPERTS
from lostwax.backends.ascend.lowerings.norms import NORMS
from lostwax.backends.ascend.lowerings.products import PRODUCTS
from lostwax.backends.ascend.lowerings.rope import ROPE
from lostwax.backends.lowering import Lowering
from lostwax.backends.portable.lowerings import lowerings as portable_lowerings
from lostwax.ir.contract.target import Target

_OWN = (*ATTENTION, *CACHE, *ELEMENTWISE, *EXPERTS, *NORMS, *PRODUCTS, *ROPE)
_OF_CANN = tuple(replace(lowering, library="CANN") for lowering in _OWN)
"""What they call is CANN's, and no kernel of the project's."""


def lowerings(target: Target) -> tuple[Lowering, ...]:
    """Its own and the portable ones; their predicates ask the target's facts."""
    every = (*_OF_CANN, *portable_lowerings(target))  # torch_npu gives torch's calls to CANN, too
    return tuple(replace(lowering, installed=libraries_behind) for lowering in every)
