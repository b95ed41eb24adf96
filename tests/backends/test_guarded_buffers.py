"""What is written beside a buffer of a kernel on the CPU is named, on either side."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from guarded_buffers import ALIGN, fenced, guarded, require_guards

TOUCH = """
import ctypes, sys
from guarded_buffers import fenced
buffer = fenced(int(sys.argv[1]))
ctypes.string_at(buffer.ctypes.data + int(sys.argv[2]), 1)
"""


@pytest.mark.parametrize("size", [0, 1, 4, 4096])
def test_buffers_lie_as_on_a_device_and_all_of_them_may_be_written(size: int) -> None:
    buffer = guarded(size)
    assert not size or buffer.ctypes.data % ALIGN == 0
    assert (buffer == 0xFF).all()
    buffer[:] = 0
    require_guards({"out": buffer})


@pytest.mark.parametrize(
    ("place", "said"),
    [(-1, "in front of"), (-ALIGN, "in front of"), (8, "behind"), (7 + ALIGN, "behind")],
)
def test_a_byte_beside_a_buffer_is_noticed(place: int, said: str) -> None:
    buffer = guarded(8)
    raw = buffer.base
    assert isinstance(raw, np.ndarray)
    raw[buffer.ctypes.data - raw.ctypes.data + place] = 0xFF
    with pytest.raises(AssertionError, match=f"{said} out"):
        require_guards({"out": buffer})


def test_a_buffer_without_zones_is_refused() -> None:
    with pytest.raises(AssertionError, match="not made by `guarded`"):
        require_guards({"out": np.zeros(8, np.uint8)[:]})


@pytest.mark.parametrize("size", [0, ALIGN, 4096, 4096 + ALIGN])
def test_a_fenced_buffer_may_be_written_and_has_a_zone_in_front(size: int) -> None:
    buffer = fenced(size)
    assert (buffer == 0xFF).all()
    buffer[:] = 0
    require_guards({"out": buffer})
    if size:
        assert buffer.ctypes.data % ALIGN == 0
        raw = buffer.base
        assert isinstance(raw, np.ndarray)
        raw[raw.size - size - 1] = 0
        with pytest.raises(AssertionError, match="in front of out"):
            require_guards({"out": buffer})


@pytest.mark.parametrize(("place", "ends"), [(511, 0), (512, -signal.SIGSEGV)])
def test_a_read_behind_a_fenced_buffer_ends_the_process(place: int, ends: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TOUCH, "512", str(place)], cwd=Path(__file__).parents[1]
    )
    assert done.returncode == ends


def test_a_size_that_cannot_be_fenced_is_refused() -> None:
    with pytest.raises(ValueError, match="give a multiple of 256"):
        fenced(100)
