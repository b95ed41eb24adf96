"""Compilers hear nothing of whoever compiles: a kernel has the same bytes in any environment."""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from msgspec import structs
from nvcc_here import needs_nvcc
from sm100_kernel import ABSORB, needs_personality
from stub_compiler import COMPILER

from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.backends.plan.kernel_builder import building
from lostwax.backends.registry import find_target
from lostwax.ir.contract.kernel import SPILL_BYTES, KernelSource

STARTS = {"LC_ALL", "LD_LIBRARY_PATH", "MALLOC_MMAP_MAX_", "PATH", "PYTHONPATH", "TMPDIR"}
"""Variables that a worker may have."""
TOPK = KernelSource(
    language="cuda",
    path="topk.cu",
    symbol="sm90_f32_topk",
    constants={"CLUSTER": 1, "THREADS": 512, "VECTORS": 1, "ALIGNED": 1, SPILL_BYTES: 1024},
    num_warps=16,
)
POISON = {
    "DISABLE_LLVM_OPT": "1",
    "DISABLE_PTXAS_OPT": "1",
    "NVCC_APPEND_FLAGS": "-Xptxas -O0",
    "NVCC_PREPEND_FLAGS": "-Xptxas -O1",
    "PTXAS_OPTIONS": "--opt-level=1",
    "TRITON_DEFAULT_FP_FUSION": "0",
}


def digest(folder: Path, source: KernelSource, target: str) -> str:
    """Of the kernel as a compile makes it."""
    backend, facts = find_target(target)
    with building(backend, facts, folder / "kernels", [source], 1) as builder:
        (kernel,) = builder.finish().kernels
    return kernel.digest


def told(folder: Path, symbol: str = "environment") -> dict[str, str]:
    """What the stub has found, and the folder it worked in as `FOLDER`."""
    backend, null = find_target("null")
    facts = structs.replace(null, shared_memory_bytes=1 << 10)  # the stub's kernel takes some
    source = KernelSource(language="triton", path="stub_compiler", symbol=symbol)
    with building(
        replace(backend, compiler=COMPILER), facts, folder / "kernels", [source], 1
    ) as builder:
        builder.finish()
    found = json.loads((folder / "environment").read_text())
    return {**found["variables"], "FOLDER": found["folder"]}


def test_a_worker_has_the_variables_it_starts_by_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in POISON.items():
        monkeypatch.setenv(name, value)
    found = told(tmp_path)
    assert found.keys() <= STARTS | {"FOLDER"}
    assert found["PATH"] == os.environ["PATH"]


@pytest.mark.skipif(not Path("/proc/self/cwd").is_dir(), reason="the system has no such name")
def test_a_worker_names_its_temporary_folder_the_same_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[dict[str, str]] = []
    for name in ("a", "much longer"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
        found.append(told(tmp_path))
        assert Path(found[-1].pop("FOLDER")).parent == tmp_path / name
    assert found[0] == found[1]


def test_what_is_refused_in_the_temporary_folder_is_named_as_the_compile_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(FileNotFoundError) as raised:
        told(tmp_path, "refused-there")
    refused = Path(raised.value.filename)
    assert (refused.parents[2], refused.parts[-2:]) == (tmp_path, ("absent", "file"))
    assert isinstance(raised.value.__cause__, KernelCompileError)


def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("t" * 60)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))


def shorter_temporary_folder(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/dev/shm")


def cautious_malloc(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000")


def malloc_without_cache(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0")


def longer_install_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = find_spec("triton")
    assert spec is not None
    assert spec.submodule_search_locations
    there = Path(spec.submodule_search_locations[0])
    folder = tmp_path / ("i" * 80)
    folder.mkdir()
    (folder / "triton").symlink_to(there)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])


def poison(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in POISON.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def absorb(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the kernel for sm_100a."""
    pytest.importorskip("triton", reason="the extra `aot` is not installed")
    return digest(tmp_path_factory.mktemp("absorb"), ABSORB, "cuda-sm100a")


@needs_nvcc  # the target's compiler tells its version
@needs_personality
@pytest.mark.parametrize(
    "change",
    [
        temporary_folder,
        shorter_temporary_folder,
        cautious_malloc,
        malloc_without_cache,
        longer_install_path,
        poison,
    ],
)
def test_a_kernel_for_sm_100a_has_the_same_bytes_in_another_environment(
    absorb: str,
    change: Callable[[Path, pytest.MonkeyPatch], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change(tmp_path, monkeypatch)
    assert digest(tmp_path, ABSORB, "cuda-sm100a") == absorb


@needs_nvcc
@needs_personality
def test_a_kernel_for_sm_100a_has_the_same_bytes_whatever_the_limit_of_the_stack(
    absorb: str, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    more = 1 << 30  # shifts what the system maps: its room is the limit, from 128 MiB on
    if hard != resource.RLIM_INFINITY and hard < more:
        pytest.skip("no more stack may be asked for")
    resource.setrlimit(resource.RLIMIT_STACK, (more, hard))
    try:
        found = digest(tmp_path, ABSORB, "cuda-sm100a")
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))
    assert found == absorb


@needs_nvcc
def test_variables_of_nvcc_and_its_preprocessor_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton", reason="the extra `aot` is not installed")
    clean = digest(tmp_path / "clean", TOPK, "cuda-sm90a")
    (tmp_path / "stdint.h").write_text("#error a header of the user's own\n")
    monkeypatch.setenv("CPATH", str(tmp_path))
    poison(tmp_path, monkeypatch)
    assert digest(tmp_path / "poisoned", TOPK, "cuda-sm90a") == clean
