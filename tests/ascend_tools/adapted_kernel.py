"""Runs a kernel that Triton's adapter for Ascend has lowered, compiled by LLVM for the CPU.

The same text that CANN's compiler gets: it shows that the front end understood the kernel, not what
comes behind it. Needs Debian's mlir-19-tools, llvm-19 and clang-19, the version of CANN's compiler.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

PASSES = (
    "convert-elementwise-to-linalg", "eliminate-empty-tensors", "empty-tensor-to-alloc-tensor",
    "one-shot-bufferize=allow-return-allocs-from-loops=true", "convert-linalg-to-loops",
    "convert-bufferization-to-memref", "expand-strided-metadata", "memref-expand", "lower-affine",
    "convert-scf-to-cf", "convert-cf-to-llvm", "convert-math-to-llvm",
    "arith-expand=include-bf16=true", "convert-arith-to-llvm", "convert-index-to-llvm",
    "finalize-memref-to-llvm", "convert-func-to-llvm", "lower-affine", "convert-arith-to-llvm",
    "reconcile-unrealized-casts",
)  # fmt: skip
"""mlir-opt's, from tensors to LLVM's dialect."""
MARK = " {hivm.unlikely_condition}"
"""A hint that mlir-opt does not parse."""


def tools() -> Path | None:
    """The folder of LLVM 19's programs, None where they are not installed."""
    found = shutil.which("mlir-opt-19") or shutil.which("/usr/lib/llvm-19/bin/mlir-opt")
    return Path(found).resolve().parent if found else None


def built(file: Path) -> Path:
    """The shared library of FILE.mlir's kernel, beside it."""
    folder = tools()
    assert folder is not None  # the caller has asked
    plain, lowered = file.with_suffix(".cpu.mlir"), file.with_suffix(".llvm.mlir")
    code, library = file.with_suffix(".ll"), file.with_suffix(".so")
    plain.write_text(file.read_text().replace(MARK, ""))
    passes = [f"--{name}" for name in PASSES]
    unknown = "--allow-unregistered-dialect"
    commands: tuple[list[Any], ...] = (
        [folder / "mlir-opt", unknown, plain, *passes, "-o", lowered],
        [folder / "mlir-translate", "--mlir-to-llvmir", lowered, "-o", code],
        [
            folder / "clang", "-O2", "-w", "-shared", "-fPIC", code,
            Path(__file__).with_name("memref.c"), "-o", library, "-lm",
        ],
    )  # fmt: skip
    for command in commands:
        subprocess.run(command, check=True)
    return library


def run(
    library: Path, kernel: str, arguments: Sequence[torch.Tensor | int | float], n: int
) -> None:
    """Call the kernel for each of n programs.

    It takes two memrefs that it does not use (locks, workspace), its own arguments (tensors as
    memrefs of one axis), the grid and the program's place in it.
    """
    function = getattr(ctypes.CDLL(str(library)), kernel)
    function.restype = None
    own = [part for each in arguments for part in _passed(each)]
    for program in range(n):
        place = [ctypes.c_int32(i) for i in (n, 1, 1, program, 0, 0)]
        function(*_memref(None), *_memref(None), *own, *place)


def _passed(value: torch.Tensor | int | float) -> list[Any]:
    if isinstance(value, torch.Tensor):
        return _memref(value)
    return [ctypes.c_int32(value) if isinstance(value, int) else ctypes.c_float(value)]


def _memref(tensor: torch.Tensor | None) -> list[Any]:
    where = ctypes.c_void_p(tensor.data_ptr() if tensor is not None else 0)
    count = ctypes.c_int64(tensor.numel() if tensor is not None else 0)
    return [where, where, ctypes.c_int64(0), count, ctypes.c_int64(1)]
