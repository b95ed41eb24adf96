"""Reads what ptxas says of a kernel and refuses what would be slow. Knows no compiler's flags."""

from __future__ import annotations

import re

from lostwax.backends.kernel_compiler import KernelCompileError

_SPILLS = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads")
_SERIALISED = re.compile(r"^.*(?:C751\d|wgmma.*serializ).*$", re.MULTILINE | re.IGNORECASE)


def require_fast_code(kernel: str, report: str, spill_bytes: int) -> None:
    """Raise KernelCompileError where `ptxas -v` reports more than `spill_bytes` of stores and loads
    of spilled registers, or serialised wgmma.

    Of both ptxas only informs; in a loop either costs a multiple of the kernel's time.
    """
    counts = _SPILLS.findall(report)
    if not counts:
        raise KernelCompileError(f"ptxas says nothing of the registers of {kernel}: give it -v")
    spilled = sum(int(n) for pair in counts for n in pair)
    if spilled > spill_bytes:
        raise KernelCompileError(
            f"{kernel} spills registers ({spilled} bytes of stores and loads, its lowering allows"
            f" {spill_bytes}): take smaller tiles or fewer values at once"
        )
    serialised = _SERIALISED.search(report)
    if serialised:
        raise KernelCompileError(
            f"ptxas runs the wgmma of {kernel} one behind the other ({serialised[0].strip()}):"
            " let no other instruction touch its registers between fence and wait"
        )
