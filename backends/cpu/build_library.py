"""Builds the libraries of native kernels: `python -m lostwax.backends.cpu.build_library`.

For who changes a kernel. Needs the ziglang wheel (a C++ compiler for every instruction set, the
same everywhere) in the version that `library.json` names: the same sources give the same bytes.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import msgspec

from lostwax.backends.cpu.library import FOLDER, KERNELS, NOTE, Library, libraries, sources_digest
from lostwax.ir.contract.own_program import own_program

FLAGS = (
    "-x", "c++", "-std=c++20", "-O3", "-fPIC", "-fno-exceptions", "-fno-rtti", "-fno-math-errno",
    "-ffp-contract=fast", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables", "-fno-ident",
    "-g0", "-Wall", "-Wextra", "-Werror",
)  # fmt: skip


class Level(NamedTuple):
    """An instruction set: the compiler's name for it, and what the processor must have."""

    name: str
    features: tuple[str, ...]


class Build(NamedTuple):
    """A library: for what it is, the least that it asks for, and more that some processors have,
    whose kernels have a suffix (`KERNEL` in `team.h`).

    `archs`: by `Target.arch`, suffixes of the kernels that such artifacts take, best first; what
    the last one needs they ask for.
    """

    target: str
    least: Level
    more: dict[str, Level]
    archs: dict[str, tuple[str, ...]]

    def features(self, suffix: str) -> tuple[str, ...]:
        """What the processor must have for kernels of that suffix, beside the least."""
        return self.more[suffix].features if suffix else ()


_V3 = Level("x86_64_v3", ("avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"))
_V4 = Level("x86_64_v4", ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"))
_BF16 = Level("x86_64_v4+avx512bf16", (*_V4.features, "avx512_bf16"))
_AMX = Level("x86_64_v4+avx512bf16+amx_tile+amx_bf16", (*_BF16.features, "amx_tile", "amx_bf16"))
_BEST = ("_amx", "_avx512bf16", "_avx512")
# Rounding and fusing in NEON are of armv8.0; v8.2 has the atomics that the threads meet by.
_V8_2 = Level("generic+v8_2a", ("fp", "asimd", "crc32", "atomics", "asimdrdm"))
BUILDS = {
    "x86-64-v3": Build(
        "x86_64-linux-gnu.2.28",
        _V3,
        {"_amx": _AMX, "_avx512bf16": _BF16, "_avx512": _V4},
        {"x86-64": (*_BEST, ""), "x86-64-v3": ("",), "x86-64-v4": _BEST},
    ),
    "armv8.2-a": Build("aarch64-linux-gnu.2.28", _V8_2, {}, {"armv8.2-a": ("",)}),
}
"""By their files' names."""


def flags_of(build: Build) -> tuple[str, ...]:
    """All that says how a library is built, for its digest."""
    levels = (build.least, *build.more.values())
    return (*FLAGS, build.target, *(level.name for level in levels))


def built(build: Build) -> bytes:
    """The library that the sources give. Raises CalledProcessError for what is refused."""
    compiler = [*own_program("ziglang"), "cc", "-target", build.target]
    with tempfile.TemporaryDirectory() as work:
        objects: list[str] = []
        for source, level in (
            ("pool.cpp", build.least),
            *(("native.cpp", level) for level in (build.least, *build.more.values())),
        ):
            objects.append(str(Path(work, f"{len(objects)}.o")))
            command = [*compiler, f"-mcpu={level.name}", *FLAGS, "-c", source, "-o", objects[-1]]
            subprocess.run(command, cwd=KERNELS, check=True)
        out = Path(work, "native.so")
        subprocess.run([*compiler, "-shared", "-s", *objects, "-o", str(out)], check=True)
        return out.read_bytes()


def noted(name: str, build: Build, content: bytes) -> dict[str, Library]:
    """What `library.json` says of a library, by `Target.arch`."""
    return {
        arch: Library(
            file=f"{name}.so",
            digest=hashlib.sha256(content).hexdigest(),
            sources=sources_digest(flags_of(build)),
            compiler=f"ziglang {version('ziglang')}",
            suffix=suffixes[-1],
            features=(*build.least.features, *build.features(suffixes[-1])),
            more={suffix: build.features(suffix) for suffix in suffixes[:-1]},
        )
        for arch, suffixes in build.archs.items()
    }


def main() -> None:
    """Build all, write them beside `library.json`. Exits where the compiler is another."""
    wanted = {library.compiler for library in libraries().values()}
    try:
        found = f"ziglang {version('ziglang')}"
    except PackageNotFoundError:
        found = "no ziglang"
    if wanted != {found}:
        (package,) = wanted
        name, number = package.split()
        sys.exit(
            f"the libraries are built by {package}, here is {found}: pip install {name}=={number}"
        )
    notes: dict[str, Library] = {}
    for name, build in BUILDS.items():
        content = built(build)
        (FOLDER / f"{name}.so").write_bytes(content)
        notes |= noted(name, build, content)
    NOTE.write_bytes(msgspec.json.format(msgspec.json.encode(notes)) + b"\n")


if __name__ == "__main__":
    main()
