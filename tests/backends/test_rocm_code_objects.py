"""What is read of a code object, and what its compiler refuses: over made ones, without Triton."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.backends.rocm import compiler, hsaco
from lostwax.backends.rocm.compiler import RocmCompiler
from lostwax.backends.rocm.hsaco import Figures, figures, kernel_usage, parameters_of
from lostwax.backends.rocm.next_legal import next_legal
from lostwax.backends.rocm.target import ROCM_GFX942
from lostwax.ir.contract.kernel import KernelSource

SOURCE = KernelSource(
    language="triton", path="lostwax.backends.gpu_kernels.linear", symbol="known",
    constants={"BLOCK_N": 64, "AHEAD": 4, "WIDTH": 512}, num_stages=4,
)  # fmt: skip


def described(name: str, first: int) -> dict[str, object]:
    """A kernel as LLVM's metadata describes it, each number another one."""
    values = (
        "global_buffer",
        "by_value",
        "global_buffer",
        "hidden_block_count_x",
        "hidden_none",
    )
    return {
        ".name": name, ".vgpr_count": first, ".agpr_count": first + 1,
        ".vgpr_spill_count": first + 2, ".sgpr_count": first + 3, ".sgpr_spill_count": first + 4,
        ".group_segment_fixed_size": first + 5, ".private_segment_fixed_size": first + 6,
        ".kernarg_segment_size": first + 7, ".wavefront_size": 64,
        ".args": [{".value_kind": kind, ".size": 8} for kind in values],
    }  # fmt: skip


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> bytes:
    kernels = [described("other", 100), described("known", 200)]
    content = msgspec.msgpack.encode({"amdhsa.version": [1, 2], "amdhsa.kernels": kernels})

    def notes(elf: bytes) -> Iterator[tuple[bytes, int, bytes]]:
        yield b"GNU", 3, b"a build's id"
        yield b"AMDGPU", 31, b"an older form"
        yield b"AMDGPU", 32, content

    monkeypatch.setattr(hsaco, "notes", notes)
    return b"\x7fELF"


def test_figures_are_those_of_the_kernel_that_was_named(made: bytes) -> None:
    assert figures(made, "known") == Figures(200, 201, 202, 206)
    assert kernel_usage(made, "known").registers == 200
    assert kernel_usage(made, "known").static_shared_bytes == 205
    assert parameters_of(made, "known") == 3, "hidden ones are the runtime's"
    with pytest.raises(ValueError, match=r"holds no kernel 'none', only \['other', 'known'\]"):
        figures(made, "none")


def lds(source: KernelSource) -> int:
    """Bytes that a source takes here: a page a stage for each 16 columns."""
    stages = source.constants.get("AHEAD", source.num_stages)
    return 1024 * stages * source.constants["BLOCK_N"]


def test_the_next_legal_setting_has_as_many_stages_as_fit() -> None:
    assert next_legal(SOURCE, lds, 200 << 10) == "num_stages=3"
    assert next_legal(SOURCE, lds, 128 << 10) == "num_stages=2", "as much as there is fits"
    halved = replace(SOURCE, constants=SOURCE.constants | {"AHEAD": 4}, num_stages=1)
    assert next_legal(halved, lds, 128 << 10) == "BLOCK_N=32"
    assert next_legal(halved, lds, 64 << 10) == "BLOCK_N=16"
    assert next_legal(halved, lds, 60 << 10) is None, "the matrix units take no smaller side"


class Triton:
    """Stands where Triton's compiler stands."""

    version = "3.7.1"

    def __init__(self, *target: object) -> None:
        assert target == ("hip", "gfx942", 64)

    def compile(self, source: KernelSource) -> tuple[bytes, int]:
        return b"\x7fELF", lds(source) // 4


@pytest.fixture
def rocm(made: bytes, monkeypatch: pytest.MonkeyPatch) -> RocmCompiler:
    monkeypatch.setattr(compiler, "TritonCompiler", Triton)

    def one(source: KernelSource) -> int:
        return 1

    monkeypatch.setattr(compiler, "num_parameters", one)
    return RocmCompiler(ROCM_GFX942)


def test_what_is_compiled_says_what_it_takes(rocm: RocmCompiler, tmp_path: Path) -> None:
    found = rocm.compile(replace(SOURCE, constants={"BLOCK_N": 16}), tmp_path)
    assert (found.registers, found.static_shared_bytes, found.shared_bytes) == (200, 205, 16384)
    assert found.trailing_nulls == 2
    assert (tmp_path / found.binary).read_bytes() == b"\x7fELF"
    assert rocm.toolchain() == {"triton": "3.7.1"}


def test_what_does_not_fit_is_refused_with_what_does(rocm: RocmCompiler, tmp_path: Path) -> None:
    large = replace(SOURCE, constants=SOURCE.constants | {"BLOCK_N": 128})
    with pytest.raises(KernelCompileError, match="has 65536: the next legal setting is num_stages"):
        rocm.compile(large, tmp_path)
    with pytest.raises(KernelCompileError, match="written in cuda, and the target rocm-gfx942"):
        rocm.compile(replace(SOURCE, language="cuda"), tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_binary_of_other_parameters_is_refused(
    rocm: RocmCompiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def four(hsaco: bytes, symbol: str) -> int:
        return 4

    monkeypatch.setattr(compiler, "parameters_of", four)
    with pytest.raises(
        KernelCompileError, match="takes 4 parameters as compiled, its launch would"
    ):
        rocm.compile(replace(SOURCE, constants={"BLOCK_N": 16}), tmp_path)
