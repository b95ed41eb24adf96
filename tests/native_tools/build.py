"""Builds the native kernels and the pool with a sanitiser, into a program. Knows no test."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lostwax.backends.cpu.library import KERNELS

TOOLS = Path(__file__).parent
COMPILER = "g++"
FLAGS = (
    "-std=c++20", "-O1", "-g", "-fno-omit-frame-pointer", "-fno-math-errno", "-ffp-contract=fast",
    "-Wall", "-Wextra", "-Werror", "-Wno-psabi",
)  # fmt: skip
LEVELS = {"": "x86-64-v3", "_avx512": "x86-64-v4"}
"""By the suffix of symbols, as `build_library.py` has them."""
KINDS = {"memory": "address,undefined", "threads": "thread"}


def built(kind: str, program: str, folder: Path) -> Path:
    """`replay` or `stress` with all kernels. Raises CalledProcessError with what g++ says."""
    flags = [*FLAGS, f"-fsanitize={KINDS[kind]}", "-fno-sanitize-recover=all"]
    sources = [
        (TOOLS / f"{program}.cpp", "", "x86-64-v3"),
        (KERNELS / "pool.cpp", "", "x86-64-v3"),
        *((KERNELS / "native.cpp", suffix, level) for suffix, level in LEVELS.items()),
    ]
    objects: list[str] = []
    for source, suffix, level in sources:
        made = folder / f"{kind}-{source.stem}{suffix}.o"
        objects.append(str(made))
        if not made.exists():
            command = [COMPILER, "-c", f"-march={level}", *flags, source, "-o", made]
            subprocess.run(command, check=True)
    out = folder / f"{program}-{kind}"
    subprocess.run([COMPILER, *flags, "-rdynamic", *objects, "-o", out, "-ldl"], check=True)
    return out
