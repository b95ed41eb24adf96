"""Finds nvcc: in the wheels of the extra `aot-cuda`, else on the search path. Compiles nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from lostwax.backends.kernel_compiler import KernelCompileError

REMEDY = (
    "install the compiler wheels (pip install -c constraints.txt -e '.[aot-cuda]')"
    " or put CUDA 13's nvcc on PATH"
)


@dataclass(frozen=True, slots=True)
class Nvcc:
    """A CUDA C++ compiler: its program and its version, such as `13.0.88`."""

    program: Path
    version: str


def _from_wheel() -> Path | None:
    """The nvcc of the wheel nvidia-cuda-nvcc; its headers lie beside it."""
    try:
        installed = files("nvidia-cuda-nvcc") or []
    except PackageNotFoundError:
        return None
    for file in installed:
        if file.name == "nvcc" and file.parent.name == "bin":
            program = Path(str(file.locate()))
            return program if program.exists() else None
    return None


def find_nvcc() -> Nvcc:
    """The wheel's nvcc, else the one on PATH; KernelCompileError names the remedy."""
    on_path = shutil.which("nvcc")
    program = _from_wheel() or (Path(on_path) if on_path else None)
    if program is None:
        raise KernelCompileError(f"CUDA C++ kernels need nvcc, and none was found: {REMEDY}")
    try:
        text = subprocess.run(
            [str(program), "--version"], check=True, capture_output=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise KernelCompileError(f"{program} does not run ({error}): {REMEDY}") from error
    version = re.search(r"V(\d+\.\d+\.\d+)", text)
    if version is None:
        raise KernelCompileError(f"{program} --version prints no version: {REMEDY}")
    return Nvcc(program, version[1])
