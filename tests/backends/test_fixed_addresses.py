"""Compilers start without random addresses, and so kernels for sm_100a have the same bytes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from sm100_kernel import ABSORB, NO_RANDOMIZE, needs_personality, personality

from lostwax.backends.gpu_kernels.fixed_addresses import fixed_addresses
from lostwax.backends.gpu_kernels.triton_compiler import TritonCompiler

TIMES = 6
"""Without fixed addresses about half have other bytes: all six agree once in 32 runs."""


@needs_personality
def test_children_start_without_random_addresses_only_meanwhile() -> None:
    before = personality()
    with fixed_addresses():
        assert personality() & NO_RANDOMIZE
    assert personality() == before


@needs_personality
def test_an_error_brings_random_addresses_back() -> None:
    before = personality()
    with suppress(KeyError), fixed_addresses():
        raise KeyError
    assert personality() == before


@needs_personality
def test_a_kernel_for_sm_100a_has_the_same_bytes_each_time() -> None:
    pytest.importorskip("triton")
    compiler = TritonCompiler("cuda", 100, 32)
    assert len({compiler.compile(ABSORB)[0] for _ in range(TIMES)}) == 1
