"""Starts compilers without random addresses, which ptxas's choice of registers depends on."""

from __future__ import annotations

import ctypes
from collections.abc import Generator
from contextlib import contextmanager

_ASK = 0xFFFFFFFF
"""Asks for the personality, and changes nothing."""
_ADDR_NO_RANDOMIZE = 0x0040000
"""personality(2), `<sys/personality.h>`."""


@contextmanager
def fixed_addresses() -> Generator[None]:
    """Programs that this thread starts meanwhile find their memory at the same addresses each time.

    ptxas 13.0 and 13.1 give kernels with tcgen05 (sm_100a) one of several assignments of registers,
    by the order of addresses. Systems that forbid this call (some containers; other kernels than
    Linux have none) compile all the same: there such a kernel's bytes may differ from run to run.
    """
    personality = getattr(ctypes.CDLL(None), "personality", None)
    before = personality(ctypes.c_ulong(_ASK)) if personality else -1
    if personality is None or before < 0:
        yield
        return
    personality(ctypes.c_ulong(before | _ADDR_NO_RANDOMIZE))
    try:
        yield
    finally:
        personality(ctypes.c_ulong(before))
