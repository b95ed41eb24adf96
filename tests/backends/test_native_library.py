"""The CPU's library of native kernels: it is the sources', and nothing else is loaded. The pool."""

from __future__ import annotations

import numpy as np
import pytest

from lostwax.backends.cpu import library, pool
from lostwax.backends.cpu.build_library import BUILDS, flags_of
from lostwax.backends.cpu.library import libraries, library_bytes, sources_digest
from lostwax.backends.cpu.pool import NativeLaunch, NativePool, StepList
from lostwax.backends.cpu.target import CPU, TARGETS
from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.backends.runtime.driver import DeviceUnavailable
from lostwax.backends.runtime.kernel_parameters import PackedParameters
from lostwax.ir.contract.parameter import Scalar

ROWS, WIDTH = 37, 96


def _pool() -> NativePool:
    return NativePool(CPU.arch, library_bytes(CPU.arch))


@pytest.mark.parametrize("name", BUILDS)
def test_it_was_built_of_these_sources(name: str) -> None:
    build, remedy = BUILDS[name], "run python -m lostwax.backends.cpu.build_library"
    for arch, suffixes in build.archs.items():
        noted = libraries()[arch]
        assert noted.file == f"{name}.so"
        assert noted.sources == sources_digest(flags_of(build)), remedy
        assert noted.suffix == suffixes[-1]
        assert set(noted.features) >= set(build.least.features)
        assert noted.more == {suffix: build.more[suffix].features for suffix in suffixes[:-1]}
        assert library_bytes(arch)


def test_every_kind_of_kernels_is_some_targets() -> None:
    for build in BUILDS.values():
        assert {s for suffixes in build.archs.values() for s in suffixes} == {"", *build.more}
    assert {target.arch for target in TARGETS} == set(libraries())


def test_a_library_that_was_altered_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    (library.FOLDER / libraries()[CPU.arch].file).write_bytes(b"x")
    with pytest.raises(ValueError, match="install lostwax again"):
        library_bytes(CPU.arch)


def test_a_foreign_library_is_never_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_loaded", lambda content: pytest.fail("it was loaded"))  # pyright: ignore[reportUnknownLambdaType]
    for arch, content in ((CPU.arch, b"x"), ("riscv64", library_bytes(CPU.arch))):
        with pytest.raises(ArtifactError, match="recompile"):
            NativePool(arch, content)


def test_a_processor_without_a_feature_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_processor_features", lambda: {"avx2", "fma"})
    with pytest.raises(DeviceUnavailable, match=r"lacks bmi1, bmi2.*another target"):
        _pool()


def test_an_unknown_kernel_is_told() -> None:
    with pytest.raises(ArtifactError, match="no kernel 'nothing'"):
        _pool().kernel("nothing")


def _chain(own: NativePool, a: np.ndarray, b: np.ndarray, length: int) -> StepList:
    """b = a + b, then a = a + b, and so on: each launch reads what the one before wrote."""
    rows = np.array([ROWS], np.int32)
    kernel, launches = own.kernel("add_f32"), list[NativeLaunch]()
    for i in range(length):
        out = b if i % 2 == 0 else a
        numbers = (ROWS, WIDTH, WIDTH, WIDTH, WIDTH)
        places = [array.ctypes.data for array in (a, b, out, rows)]
        packed = PackedParameters([*places, *(Scalar("i32", n) for n in numbers)])
        launches.append(NativeLaunch(kernel, packed, 0, (a, b, rows)))
    return StepList(own, launches)


def _expected(a: np.ndarray, b: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = a.copy(), b.copy()
    for i in range(length):
        if i % 2 == 0:
            b = a + b
        else:
            a = a + b
    return a, b


def test_a_list_gives_the_same_on_any_number_of_threads() -> None:
    """More threads than processors, too: some come late, or into a step that is over."""
    own = _pool()
    start = np.random.default_rng(0).random((2, ROWS, WIDTH), np.float32)
    for length in (1, 30, 7):
        wanted = _expected(start[0], start[1], length)
        for threads in (1, 2, 8, 3, 1, 8):
            own.use_threads(threads)
            for _ in range(10):
                a, b = start[0].copy(), start[1].copy()
                _chain(own, a, b, length)()
                np.testing.assert_array_equal(a, wanted[0])
                np.testing.assert_array_equal(b, wanted[1])
