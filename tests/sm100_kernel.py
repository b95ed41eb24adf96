"""A kernel for sm_100a that tells where its compiler's memory lay, and where that is fixed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lostwax.backends.gpu_kernels.fixed_addresses import fixed_addresses
from lostwax.ir.contract.kernel import KernelSource

PERSONALITY = "print(open('/proc/self/personality').read())"
NO_RANDOMIZE = 0x0040000
ABSORB = KernelSource(
    language="triton",
    path="lostwax.backends.gpu_kernels.absorbed",
    symbol="absorb_tiles",
    signature={
        "q_nope": "*bf16:16", "kv_b": "*bf16:16", "out": "*fp32:16", "real_rows": "*i32:16",
        "num_rows": "i32", "q_row_stride": "i32:16", "q_head_stride": "i32:16",
    } | dict.fromkeys(("NOPE", "OF_HEAD", "LATENT", "BLOCK_ROWS", "BLOCK_NOPE", "BLOCK_LATENT",
                       "WIDE_DOT"), "constexpr"),
    constants={"NOPE": 128, "OF_HEAD": 256, "LATENT": 512, "BLOCK_ROWS": 64, "BLOCK_NOPE": 128,
               "BLOCK_LATENT": 128, "WIDE_DOT": 0},
    num_warps=4,
    num_stages=2,
)  # fmt: skip
"""A kernel with tcgen05 products whose registers ptxas assigns by the order of addresses."""


def personality() -> int:
    """What a program that is started here runs under."""
    asked = [sys.executable, "-c", PERSONALITY]
    return int(subprocess.run(asked, capture_output=True, check=True, text=True).stdout, 16)


def _may_fix() -> bool:
    if sys.platform != "linux":
        return False
    with fixed_addresses():
        return bool(personality() & NO_RANDOMIZE)


needs_personality = pytest.mark.skipif(not _may_fix(), reason="this system forbids personality(2)")
