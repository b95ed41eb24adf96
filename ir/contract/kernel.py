"""A kernel's source and what compiling it gave. Knows no compiler."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from lostwax.ir.contract.bounds import Bytes, Few, FileName, Word
from lostwax.ir.contract.canonical import canonical

SHARED_BYTES = "SHARED_BYTES"
"""The constant by which a CUDA C++ source says how much dynamic shared memory a launch gives it."""

SPILL_BYTES = "SPILL_BYTES"
"""The constant by which it says how many bytes of spilled registers it may have; 0 without it."""


class KernelSource(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel to compile ahead of time.

    `language` `triton`: `path` is a dotted module and `symbol` the jit function in it, `signature`
    gives Triton types by parameter (`*bf16`, `i32`, `constexpr`), `constants` the constexprs.
    `language` `cuda`: `path` is a .cu file beside the kernels package, `symbol` the extern "C"
    kernel, `constants` become -D macros (of which `SHARED_BYTES` and `SPILL_BYTES`
    mean something to the compiler, too). `cpp`: `symbol` is one of the CPU's library.
    """

    language: Literal["triton", "cuda", "cpp"]
    path: Word
    symbol: Word
    signature: dict[str, str] = {}
    constants: dict[str, int] = {}
    num_warps: int = 4
    num_stages: int = 2

    def digest(self) -> str:
        """sha256 of the canonical JSON: the same for the same request to a compiler."""
        return hashlib.sha256(canonical(self)).hexdigest()


class CompiledKernel(msgspec.Struct, frozen=True, kw_only=True):
    """A device binary in the artifact's `kernels/` folder, with what its launch must respect."""

    binary: FileName
    symbol: Word
    digest: str
    num_warps: Few
    shared_bytes: Bytes
    registers: Few
    static_shared_bytes: Bytes = 0
    """Shared memory that the binary itself declares, beside `shared_bytes` of the launch."""
    trailing_nulls: Few = 0
    """Scratch pointers that follow the parameters (two for Triton)."""
    source: str = ""
    """`KernelSource.digest()` of what was compiled: names and numbers."""
    code: str = ""
    """Digest of the files that held its code, those that they import too."""


class KernelNote(msgspec.Struct, frozen=True, kw_only=True):
    """What lies beside a binary in the artifact, for people and for running its source elsewhere.

    `shared_bytes` is all that a block takes. `sources` are the requests that gave this binary;
    `code_digest` is over the files that hold their code.
    """

    binary: FileName
    symbol: Word
    arch: Word
    registers: int
    shared_bytes: int
    num_warps: int
    digest: str
    sources: tuple[KernelSource, ...]
    code_digest: str
