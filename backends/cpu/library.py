"""The library of native kernels that comes with the package, one for each instruction set.

Knows no lowering and no driver. It is built once for all (`build_library.py`): who compiles a model
for a CPU needs no compiler, and a driver loads no other library than this one.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import msgspec

KERNELS = Path(__file__).with_name("kernels")
FOLDER = Path(__file__).with_name("library")
NOTE = FOLDER / "library.json"
SOURCES = ("*.cpp", "*.h")


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """What one instruction set takes of a file: its digest, and the digest of the sources and flags
    that it was made of. `features` are what the processor must have, by Linux's names, for kernels
    whose symbols have `suffix`; `more`, by the suffix of theirs, what it must have for kernels that
    are faster, best first."""

    file: str
    digest: str
    sources: str
    compiler: str
    suffix: str
    features: tuple[str, ...]
    more: dict[str, tuple[str, ...]]


@cache
def libraries() -> dict[str, Library]:
    """By instruction set, as `Target.arch` names it."""
    return msgspec.json.decode(NOTE.read_bytes(), type=dict[str, Library])


def library_bytes(arch: str) -> bytes:
    """The library for an instruction set that has one. Raises ValueError where it was altered."""
    library = libraries()[arch]
    content = (FOLDER / library.file).read_bytes()
    if hashlib.sha256(content).hexdigest() != library.digest:
        raise ValueError(
            f"{library.file} of the installed package is not what library.json says; install"
            " lostwax again"
        )
    return content


def sources_digest(flags: tuple[str, ...]) -> str:
    """sha256 of the kernels' files in order of their names, and of the compiler's flags."""
    found = hashlib.sha256(" ".join(flags).encode())
    for path in sorted(p for pattern in SOURCES for p in KERNELS.glob(pattern)):
        found.update(f"\n{path.name}\n".encode())
        found.update(path.read_bytes())
    return found.hexdigest()
