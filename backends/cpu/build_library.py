"""Builds the libraries of native kernels: `python -m lostwax.backends.cpu.build_library`.

For who changes a kernel. Needs the extra `native` (the ziglang wheel: a C++ compiler for every
instruction set, the same everywhere), so that the same sources give the same bytes.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

import msgspec

from lostwax.backends.cpu.library import FOLDER, KERNELS, NOTE, Library, sources_digest
from lostwax.ir.contract.own_program import own_program

FLAGS = (
    "-x", "c++", "-std=c++20", "-O3", "-shared", "-fPIC", "-fno-exceptions", "-fno-rtti",
    "-fno-math-errno", "-ffp-contract=fast", "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables", "-fno-ident", "-g0", "-s", "-Wall", "-Wextra", "-Werror",
)  # fmt: skip
LEVELS = {
    "x86-64-v3": (
        ("-target", "x86_64-linux-gnu.2.28", "-mcpu=x86_64_v3"),
        ("avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"),
    ),
}
"""Flags and what the processor must have, by `Target.arch`."""


def built(flags: tuple[str, ...]) -> bytes:
    """The library that the sources give. Raises CalledProcessError for what is refused."""
    with tempfile.TemporaryDirectory() as work:
        out = Path(work, "native.so")
        command = [*own_program("ziglang"), "cc", *flags, "-o", str(out), "native.cpp"]
        subprocess.run(command, cwd=KERNELS, check=True)
        return out.read_bytes()


def main() -> None:
    """Build all, write them beside `library.json`."""
    FOLDER.mkdir(exist_ok=True)
    notes: dict[str, Library] = {}
    for arch, (level, features) in LEVELS.items():
        flags = (*FLAGS, *level)
        content = built(flags)
        file = f"{arch}.so"
        (FOLDER / file).write_bytes(content)
        notes[arch] = Library(
            file=file,
            digest=hashlib.sha256(content).hexdigest(),
            sources=sources_digest(flags),
            compiler=f"ziglang {version('ziglang')}",
            features=features,
        )
    NOTE.write_bytes(msgspec.json.format(msgspec.json.encode(notes)) + b"\n")


if __name__ == "__main__":
    main()
