"""The CPU's kernels of the step give what the oracle gives, by themselves and through
`DeviceStep`."""

from __future__ import annotations

import random
import re

import pytest
from derive_trial import PAGE
from device_trial import LAYOUT as DEVICE_LAYOUT
from device_trial import DeviceTrial
from msgspec import structs
from native_kernels import build_native, native_driver
from step_trial import LAYOUT, Device, StepTrial

from lostwax.backends.cpu import pool
from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.library import KERNELS, libraries
from lostwax.backends.cpu.lowerings.native_step import NativeStepLaunches, native_step
from lostwax.backends.cpu.target import CPU
from lostwax.ir.contract.counts import OUTPUT
from lostwax.ir.contract.step import TRASH_PAGE
from lostwax.ir.contract.step_layout import HEADER, HEADER_SIZE, PLACES, StepLayout
from lostwax.ir.contract.step_state import NO_TOKEN


def launches(layout: StepLayout) -> NativeStepLaunches:
    made = native_step(layout, PAGE, CPU, build_native)
    assert made is not None
    return made


@pytest.fixture(params=["least", "best"])
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CpuDriver:
    """One over the kernels of the least instruction set, or the best that is here."""
    if request.param == "least":
        least = set(libraries()[CPU.arch].features)
        monkeypatch.setattr(pool, "_processor_features", lambda: least)
    return native_driver()


@pytest.mark.parametrize("threads", [1, 2])
def test_histories_give_the_oracles_steps(driver: CpuDriver, threads: int) -> None:
    driver.use_threads(threads)
    for seed in range(12):
        StepTrial(random.Random(seed), Device(launches(LAYOUT), driver.bind)).play(10)


def test_late_results_are_those_of_their_steps_though_some_break_off(driver: CpuDriver) -> None:
    for seed in range(12):
        trial = DeviceTrial(random.Random(seed), launches(DEVICE_LAYOUT), driver)
        trial.play(10)
        trial.hear_all()


def test_kernels_write_the_layouts_numbers_down_as_it_has_them() -> None:
    text = (KERNELS / "step.cpp").read_text(encoding="utf-8")
    listed = re.search(r"enum Header \{(.*?)\}", text, re.DOTALL)
    assert listed is not None
    assert [name.strip().lower() for name in listed[1].split(",")] == list(HEADER)
    found = dict(re.findall(r"const u?int(?:32|64)_t (\w+) = (-?\d+);", text))
    assert {name: int(value) for name, value in found.items()} == {
        "HEADER_SIZE": HEADER_SIZE, "PLACES": PLACES, "NONE": NO_TOKEN, "TRASH_PAGE": TRASH_PAGE,
        "OUTPUT": OUTPUT,
    }  # fmt: skip


def test_the_host_keeps_the_state_where_no_library_is() -> None:
    other = structs.replace(CPU, arch="riscv64")
    assert native_step(LAYOUT, PAGE, other, build_native) is None
