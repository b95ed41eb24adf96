"""What is written beside a buffer of a kernel on the CPU is named, on either side."""

from __future__ import annotations

import numpy as np
import pytest
from guarded_buffers import ALIGN, guarded, require_guards


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
