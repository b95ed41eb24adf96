"""Buffers with a guard zone on either side, for kernels that run on the CPU. Knows no kernel.

What lies in a zone is far from every number that a kernel is given or gives, in all types: what is
read there shows in the results, what is written there shows here. Behind a fenced buffer stands a
page that nobody may touch: there even a read whose result nobody uses ends the process.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
ALIGN = 256
"""As addresses are on a device; a zone has so many bytes at least."""
_NO_ACCESS = 0  # PROT_NONE
_GUARD = 0xFE  # -1.7e38 in f32 and bf16, -448 in e4m3; no byte of -1
NOTHING_HERE = 0xFF
"""What a buffer holds at first: NaN in every float type."""


def guarded(num_bytes: int) -> Bytes:
    """u8 [num_bytes] of NOTHING_HERE between two guard zones, at a border of ALIGN bytes."""
    raw = np.full(num_bytes + 3 * ALIGN, _GUARD, np.uint8)
    start = ALIGN + -raw.ctypes.data % ALIGN
    buffer = raw[start : start + num_bytes]
    buffer[:] = NOTHING_HERE
    return buffer


def fenced(num_bytes: int) -> Bytes:
    """As `guarded`, but what touches a byte behind the buffer ends the process with SIGSEGV.

    A number of bytes that is no multiple of ALIGN is refused: such a buffer cannot begin at a
    border of ALIGN bytes and end at a page's.
    """
    if num_bytes % ALIGN:
        raise ValueError(f"{num_bytes} bytes cannot be fenced: give a multiple of {ALIGN}")
    held = -(-(ALIGN + num_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = mmap.mmap(-1, held + mmap.PAGESIZE)
    raw = np.frombuffer(pages, np.uint8, held)
    fence = ctypes.c_void_p(raw.ctypes.data + held)
    if ctypes.CDLL(None, use_errno=True).mprotect(fence, mmap.PAGESIZE, _NO_ACCESS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    raw[:] = _GUARD
    buffer = raw[held - num_bytes :]
    buffer[:] = NOTHING_HERE
    return buffer


def require_guards(buffers: Mapping[str, Bytes]) -> None:
    """AssertionError where something was written beside one of these, or one has no zones."""
    for name, buffer in buffers.items():
        raw = buffer.base
        assert isinstance(raw, np.ndarray), f"{name} was not made by `guarded`"
        # numpy gives an empty array no address of its own
        start = buffer.ctypes.data - raw.ctypes.data if buffer.size else ALIGN
        front, behind = raw[:start], raw[start + buffer.size :]
        is_fenced = raw.base is not None  # pages of its own, the last of which is the fence
        zones = front.size if is_fenced else min(front.size, behind.size)
        assert zones >= ALIGN, f"{name} was not made by `guarded`"
        assert (front == _GUARD).all(), f"something was written in front of {name}"
        assert (behind == _GUARD).all(), f"something was written behind {name}"
