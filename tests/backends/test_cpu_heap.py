"""Freed memory stays with the process: the next kernel has the same block, at no page fault."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

TRIAL = """
import resource
import torch
from lostwax.backends.cpu.heap import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
keep_freed_memory()
print(before, min(faults() for _ in range(8)))  # until the heap has a place of that size
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_large_blocks_are_mapped_once() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", TRIAL], capture_output=True, text=True, timeout=120, check=True
    )
    before, after = map(int, ran.stdout.split())
    assert before > 4 * 1000, "64 MiB each time, in pages of the system"
    assert after < before / 20
