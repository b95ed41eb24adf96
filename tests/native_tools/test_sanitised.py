"""The native kernels and the pool under ASan, UBSan and TSan.

Launches that the conformance kit runs of every native lowering, again with numbers that are none
and without rows; and the pool alone.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from model_formats import FORMATS
from native_kernels import NATIVE, build_native, native_driver
from native_tools.build import COMPILER, built
from native_tools.launch_file import Bytes, Recorded, read_back, write
from native_tools.recording import recording
from numpy.typing import NDArray
from tiny import PLAIN

from lostwax.backends.cpu.library import libraries
from lostwax.backends.cpu.lowerings import lowerings
from lostwax.backends.cpu.processor import processor_features
from lostwax.backends.cpu.target import CPU, CPU_V4
from lostwax.backends.proof.kit import VARIANTS, Environment, certify_all
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.pipeline import run

pytestmark = pytest.mark.sanitisers
FLOATS = {"f32": np.dtype(np.float32), "bf16": np.dtype(ml_dtypes.bfloat16)}
ODD = np.array([np.nan, np.inf, -np.inf, -0.0, 3e38, -3e38, 1e-40, 0.0], np.float32)
SECONDS = 30


INT8 = (PLAIN | {"torch_dtype": "bfloat16"}, {"weights": "int8"})
"""Which no GPU holds."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where programs are built, once a session."""
    if shutil.which(COMPILER) is None:
        pytest.fail(f"{COMPILER} is missing: install Debian's g++")
    return tmp_path_factory.mktemp("sanitised")


@pytest.fixture(scope="session")
def launches() -> list[Recorded]:
    """Of each native kernel one for each shape of its parameters; the kit is content with all."""
    environment = Environment(CPU, native_driver, build_native, "executed", {})
    own = [low for low in lowerings(CPU) if low.name.startswith(NATIVE)]
    with recording() as recorder:
        for config, chosen in (*FORMATS.values(), INT8):
            captured = capture(parse_config(config), 16)
            module = run(captured.module, (AssignFormatsPass(**chosen),))
            outcomes = certify_all(
                module, captured.facts, own, environment, variants=VARIANTS[::2], seeds=(0,)
            )
            assert any([outcome.certificate is not None for outcome in outcomes])
    return recorder.launches


@pytest.fixture(params=["", "_avx512"], ids=["v3", "v4"])
def suffix(request: pytest.FixtureRequest) -> str:
    """Of each instruction set that this processor has."""
    if request.param and not processor_features() >= set(libraries()[CPU_V4.arch].features):
        pytest.skip("this processor has no AVX-512")
    return request.param


def _odd(launch: Recorded, rng: np.random.Generator) -> Recorded:
    """Some floats are replaced by numbers that are none, or at their types' ends."""
    changed: list[Bytes] = []
    for memory, dtype in zip(launch.memory, launch.dtypes, strict=True):
        held = memory.copy()
        if dtype in FLOATS and len(held) % FLOATS[dtype].itemsize == 0:
            numbers = held.view(FLOATS[dtype])
            where = rng.random(len(numbers)) < 0.05
            numbers[where] = rng.choice(ODD, int(where.sum())).astype(FLOATS[dtype])
        changed.append(held)
    return replace(launch, memory=changed)


def _without_rows(launch: Recorded) -> Iterator[Recorded]:
    if launch.rows is not None:
        memory = list(launch.memory)
        memory[launch.rows] = np.zeros_like(memory[launch.rows])
        yield replace(launch, memory=memory)


def _replayed(
    program: Path, launches: list[Recorded], folder: Path, suffix: str, threads: int
) -> list[list[Bytes]]:
    write(folder / "launches", launches)
    command = [program, folder / "launches", folder / "out", suffix, threads]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-6000:]
    return list(read_back(folder / "out", launches))


def _numbers(memory: Bytes, dtype: str) -> NDArray[np.float64] | Bytes:
    if dtype not in FLOATS or len(memory) % FLOATS[dtype].itemsize:
        return memory
    return memory.view(FLOATS[dtype]).astype(np.float64)


def test_every_native_lowering_was_recorded(launches: list[Recorded]) -> None:
    symbols = {launch.symbol for launch in launches}
    assert symbols >= {"linear_f32", "attend_bf16", "route_f32", "index_select", "append_f32_f32"}
    assert any(launch.rows is not None for launch in launches)


def test_kernels_touch_nothing_else(
    launches: list[Recorded], folder: Path, tmp_path: Path, suffix: str
) -> None:
    """What each launch touches is its own, also where numbers are none; nothing is undefined."""
    rng = np.random.default_rng(0)
    odd = [_odd(launch, rng) for launch in launches]
    empty = [each for launch in launches for each in _without_rows(launch)]
    program = built("memory", "replay", folder)
    found = _replayed(program, [*launches, *odd, *empty], tmp_path, suffix, 1)
    again = _replayed(program, [*launches, *odd, *empty], tmp_path, suffix, 3)
    for one, other in zip(found, again, strict=True):
        for memory, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(memory, same)  # on any number of threads


def test_a_launch_that_touches_more_is_seen(
    launches: list[Recorded], folder: Path, tmp_path: Path
) -> None:
    """What the last test is worth: memory that ends earlier than the kernel thinks."""
    program = built("memory", "replay", folder)
    for symbol in ("linear_f32", "append_bf16_bf16"):
        launch = next(each for each in launches if each.symbol == symbol)
        memory = [each[:-4] for each in launch.memory]
        write(tmp_path / "launches", [replace(launch, memory=memory)])
        command = [program, tmp_path / "launches", tmp_path / "out", "", "1"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode != 0
        assert "heap-buffer-overflow" in done.stderr


def test_instruction_sets_agree(launches: list[Recorded], folder: Path, tmp_path: Path) -> None:
    """In all that launches compute, but for the last bits."""
    if not processor_features() >= set(libraries()[CPU_V4.arch].features):
        pytest.skip("this processor has no AVX-512")
    program = built("memory", "replay", folder)
    least, most = (_replayed(program, launches, tmp_path, s, 1) for s in ("", "_avx512"))
    for launch, one, other in zip(launches, least, most, strict=True):
        for memory, same, dtype in zip(one, other, launch.dtypes, strict=True):
            got, want = _numbers(memory, dtype), _numbers(same, dtype)
            np.testing.assert_allclose(got, want, rtol=0.02, atol=1e-3, err_msg=launch.symbol)


def test_threads_of_a_launch_do_not_race(
    launches: list[Recorded], folder: Path, tmp_path: Path
) -> None:
    _replayed(built("threads", "replay", folder), launches, tmp_path, "", 3)


@pytest.mark.parametrize("kind", ["memory", "threads"])
def test_a_pool_under_stress(folder: Path, kind: str) -> None:
    program = built(kind, "stress", folder)
    done = subprocess.run([program, str(SECONDS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-6000:]
