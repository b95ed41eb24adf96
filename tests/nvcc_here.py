"""Whether CUDA C++ can be compiled here: a mark for tests that do."""

from __future__ import annotations

import pytest

from lostwax.backends.cuda import nvcc
from lostwax.backends.kernel_compiler import KernelCompileError


def has_nvcc() -> bool:
    """Whether nvcc is installed."""
    try:
        nvcc.find_nvcc()
    except KernelCompileError:
        return False
    return True


needs_nvcc = pytest.mark.skipif(not has_nvcc(), reason=nvcc.REMEDY)
