"""The CPU's library of native kernels: it is the sources', and nothing else is loaded. The pool."""

from __future__ import annotations

import os

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


def test_a_process_opens_the_library_once() -> None:
    _pool()
    before = len(os.listdir("/proc/self/fd"))
    pools = [_pool() for _ in range(3)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert len({own.kernel("add_f32") for own in pools}) == 1


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


def test_a_thread_that_comes_late_takes_nothing_of_rows_that_came_later() -> None:
    """A launch in the middle of a list writes how many rows those before it have, as no compile
    makes but an artifact could: whoever goes on has closed what is behind."""
    own = _pool()
    rows, one = np.array([1], np.int32), np.array([1], np.int32)
    a, out = np.ones((64, WIDTH), np.float32), np.zeros((64, WIDTH), np.float32)
    kept: list[object] = []

    def launch(symbol: str, arrays: list[np.ndarray], numbers: tuple[int, ...]) -> NativeLaunch:
        places = [array.ctypes.data for array in arrays]
        packed = PackedParameters([*places, *(Scalar("i32", n) for n in numbers)])
        kept.append(arrays)
        return NativeLaunch(own.kernel(symbol), packed, 1 << 12, (arrays,))

    def writes(count: int) -> NativeLaunch:
        """The place of the largest of logits, which is the number of rows."""
        logits, position = np.zeros(80, np.float32), np.array([79], np.int32)
        logits[count] = 1.0
        return launch("index_select", [logits, position, rows, one], (0, 1, 1, 80))

    adds = launch("add_f32", [a, a, out, rows], (64, WIDTH, WIDTH, WIDTH, WIDTH))
    steps = StepList(own, (adds, writes(64), adds, writes(1)) * 20)
    for threads in (2, 5):
        own.use_threads(threads)
        for _ in range(200):
            out[:] = 0.0
            steps()
            assert (out == 2.0).all()
            assert rows.item() == 1


@pytest.mark.parametrize(
    ("more", "tiles", "suffix"),
    [
        ((), False, ""),
        (("avx512f",), True, ""),
        (BUILDS["x86-64-v3"].more["_avx512"].features, True, "_avx512"),
        (BUILDS["x86-64-v3"].more["_avx512bf16"].features, True, "_avx512bf16"),
        (BUILDS["x86-64-v3"].more["_amx"].features, False, "_avx512bf16"),
        (BUILDS["x86-64-v3"].more["_amx"].features, True, "_amx"),
    ],
)
def test_kernels_are_the_best_whose_features_are_all_here(
    monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], tiles: bool, suffix: str
) -> None:
    """By what the processor says, and the system of tiles; nothing runs."""
    features = {*libraries()[CPU.arch].features, *more}
    monkeypatch.setattr(pool, "_processor_features", lambda: features)
    load = pool._loaded  # pyright: ignore[reportPrivateUsage]

    def loaded(content: bytes) -> object:
        found = load(content)
        monkeypatch.setattr(found, "allow_tiles", lambda: int(tiles), raising=False)
        return found

    monkeypatch.setattr(pool, "_loaded", loaded)
    assert _pool().suffix == suffix


def test_threads_that_the_system_does_not_give_leave_those_that_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = _pool()
    library = own._library  # pyright: ignore[reportPrivateUsage]
    with monkeypatch.context() as refusing:
        refusing.setattr(library, "pool_create", lambda most: None, raising=False)  # pyright: ignore[reportUnknownLambdaType]
        with pytest.raises(DeviceUnavailable, match="gives no 4 threads; ask for fewer"):
            own.use_threads(4)
    a, b = np.ones((2, ROWS, WIDTH), np.float32)
    _chain(own, a, b, 1)()
    assert (b == 2.0).all()
