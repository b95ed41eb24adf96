"""numpy's memory and torch's do the same with the same bytes; neither reaches beyond a buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.target import CPU
from lostwax.backends.runtime.driver import Driver, no_kernels
from lostwax.backends.runtime.host_driver import HostDriver
from lostwax.backends.runtime.memory import Buffer, DeviceMemory
from lostwax.backends.runtime.result_copy import ResultCopy
from lostwax.ir.contract.view import View
from lostwax.ir.reference.dtype import NUMPY_DTYPES

KINDS: tuple[type[CpuDriver | HostDriver], ...] = (CpuDriver, HostDriver)
WORDS = np.arange(96, dtype=np.int32)


def _view(
    dtype: str = "i32",
    shape: tuple[int, ...] = (4, 3),
    strides: tuple[int, ...] = (10, 1),
    offset: int = 8,
) -> View:
    return View(space="arena", name="", dtype=dtype, shape=shape, strides=strides, offset=offset)


def _filled(driver: Driver) -> Buffer:
    buffer = driver.allocate(WORDS.nbytes)
    driver.memory.put(buffer, WORDS)
    return buffer


def _after(do: Callable[[DeviceMemory, Buffer], object]) -> list[Any]:
    """What each kind's buffer holds after `do`, and what that gave."""
    found: list[Any] = []
    for kind in KINDS:
        driver: Driver = kind(CPU, no_kernels, {})
        buffer = _filled(driver)
        gave = do(driver.memory, buffer)
        found.append((driver.memory.read(buffer).tobytes(), gave))
    return found


def _rows(memory: DeviceMemory, buffer: Buffer) -> None:
    table = memory.table(buffer, 12, wide=True)
    memory.put_rows(table, memory.index(np.array([3, 1])), table[5:7] + 0)
    memory.take_rows(table + 0, memory.index(np.array([0, 11])), table[8:10])


DONE: dict[str, Callable[[DeviceMemory, Buffer], object]] = {
    "put": lambda m, b: m.put(b, np.array([7, 8, 9], np.int32), 20),
    "copy": lambda m, b: m.copy(b[:8], b[16:24]),
    "set words": lambda m, b: m.set_words(b, np.array([5, 2]), np.array([-1, 70], np.int32)),
    "add words": lambda m, b: m.add_words(b, np.array([5, 2, 5]), 1 << 20),
    "rows": _rows,
    "numbers": lambda m, b: m.array_at(m.place(b, _view())).tolist(),
    "read": lambda m, b: m.read(m.place(b, _view())).tolist(),
    "samples": lambda m, b: m.samples(
        m.place(b, _view()), np.array([3, 0]), np.array([2, 1])
    ).tolist(),
    "whole rows": lambda m, b: m.samples(
        m.place(b, _view()), np.array([3, 0]), np.array([], np.int64)
    ).tolist(),
    "pages": lambda m, b: m.place(b, _view(shape=(-1, 4), strides=(4, 1), offset=0)).shape[0],
}


@pytest.mark.parametrize("name", DONE)
def test_both_kinds_leave_and_give_the_same(name: str) -> None:
    by_numpy, by_torch = _after(DONE[name])
    assert by_numpy == by_torch
    changed = by_numpy[0] != WORDS.tobytes()
    assert changed == (by_numpy[1] is None), "what gives nothing changes something"


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16", "f8E4M3FN"])
@pytest.mark.parametrize(("bad", "strays"), [(np.nan, (True, False)), (-np.inf, (False, True))])
def test_nan_and_infinity_are_found_in_real_rows_alone(
    dtype: str, bad: float, strays: tuple[bool, bool]
) -> None:
    if dtype == "f8E4M3FN" and np.isinf(bad):
        return  # it has none
    values = np.zeros((4, 3), NUMPY_DTYPES[dtype])
    values[2, 1] = bad
    view = _view(dtype, strides=(3, 1), offset=0)
    for kind in KINDS:
        driver: Driver = kind(CPU, no_kernels, {})
        buffer = driver.allocate(256)
        driver.memory.put(buffer, values)
        place = driver.memory.place(buffer, view)
        assert driver.memory.strays(place, 2) == (False, False)
        assert driver.memory.strays(place, 3) == strays


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_beyond_its_buffer_is_refused(kind: type[CpuDriver | HostDriver]) -> None:
    """A native launch is given no more than an address: nothing behind this would notice."""
    driver: Driver = kind(CPU, no_kernels, {})
    buffer = driver.allocate(160)
    driver.memory.place(buffer, _view(offset=28))
    with pytest.raises((ValueError, RuntimeError)):
        driver.memory.place(buffer, _view(offset=32))
    with pytest.raises((ValueError, RuntimeError)):
        driver.memory.place(buffer, _view(), 24)


def test_a_view_that_lies_askew_is_refused() -> None:
    driver = CpuDriver(CPU, no_kernels, {})
    with pytest.raises(ValueError, match="begins at byte 6, where no i32 does"):
        driver.memory.place(driver.allocate(160), _view(offset=6))


def test_a_place_is_a_tensor_over_the_same_memory_for_host_calls() -> None:
    driver = CpuDriver(CPU, no_kernels, {})
    place = driver.memory.place(_filled(driver), _view("bf16", offset=16))
    tensor = place.tensor()
    assert (tensor.data_ptr(), tuple(tensor.shape)) == (place.data_ptr(), (4, 3))
    tensor.fill_(2)
    assert (place.array() == 2).all()
    tensor.resize_(2, 2)  # as an `out=` of another shape would
    assert place.shape == (2, 2), "so that who bound it sees it"


def test_results_are_read_before_the_next_step_writes_over_them() -> None:
    driver = CpuDriver(CPU, no_kernels, {})
    buffer = _filled(driver)
    results = ResultCopy({"ids": driver.memory.place(buffer, _view())}, 4, driver)
    read = results.start(2)
    buffer[:] = 0
    assert read() == {"ids": [[2, 3, 4], [12, 13, 14]]}
