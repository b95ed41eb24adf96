"""What is certified is the binary of the very code that ran."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.backends.proof.taken_kernels import TakenKernels
from lostwax.backends.records import source_digest
from lostwax.backends.records.source_digest import kernel_code, kernel_files
from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource

pytest.importorskip("triton", reason="the extra `aot` is not installed")

SOURCE = KernelSource(
    language="triton", path="lostwax.backends.gpu_kernels.sample_tail", symbol="sample_weigh"
)
BINARY = CompiledKernel(
    binary="sample_weigh.cubin", symbol="sample_weigh", digest="0" * 64, num_warps=4,
    shared_bytes=0, registers=32, source=SOURCE.digest(), code=kernel_code(SOURCE, CUDA_SM90A),
)  # fmt: skip


def test_a_kernels_code_is_its_file_and_all_that_it_imports() -> None:
    names = {file.name for file in kernel_files(SOURCE, CUDA_SM90A)}
    assert {"sample_tail.py", "mask.py", "nucleus.py", "pick.py", "row_parts.py"} <= names
    assert "norms.py" not in names


def test_the_binary_of_this_code_is_taken() -> None:
    taken = TakenKernels((BINARY,), {}, CUDA_SM90A)
    assert taken(SOURCE) is BINARY


def test_a_binary_of_other_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the kernel's own only imports has changed since it was compiled."""
    before = source_digest._digest_of_file  # pyright: ignore[reportPrivateUsage]

    def changed(path: Path) -> str:
        return "other" if path.name == "row_parts.py" else before(path)

    monkeypatch.setattr(source_digest, "_digest_of_file", changed)
    with pytest.raises(ArtifactError, match=r"compiled from other code .*; recompile"):
        TakenKernels((BINARY,), {}, CUDA_SM90A)(SOURCE)


def test_a_binary_that_says_nothing_of_its_code_is_refused() -> None:
    silent = msgspec.structs.replace(BINARY, code="")
    with pytest.raises(ArtifactError, match="recompile"):
        TakenKernels((silent,), {}, CUDA_SM90A)(SOURCE)
