"""What compilers of GPU kernels hand over: a checked binary in the artifact. Knows no compiler."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from lostwax.backends.kernel_compiler import KernelCompileError
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.target import Target


@dataclass(frozen=True, slots=True)
class Usage:
    """Resources of one kernel: registers of a thread, bytes of static shared memory of a block."""

    registers: int
    static_shared_bytes: int


def store_binary(
    binary: bytes,
    suffix: str,
    source: KernelSource,
    target: Target,
    usage: Usage,
    dynamic_shared_bytes: int,
    trailing_nulls: int,
    folder: Path,
) -> CompiledKernel:
    """Write the binary into `folder` under its content's name and describe it.

    Raises KernelCompileError where a block takes more shared memory than the target has.
    """
    taken, limit = usage.static_shared_bytes + dynamic_shared_bytes, target.shared_memory_bytes
    if taken > limit:
        raise KernelCompileError(
            f"{source.symbol} with {source.constants} takes {taken} bytes of shared memory, the"
            f" target {target.name} has {limit}: choose smaller blocks or fewer stages"
        )
    digest = hashlib.sha256(binary).hexdigest()
    name = f"{source.symbol}-{digest[:16]}.{suffix}"
    (folder / name).write_bytes(binary)
    return CompiledKernel(
        binary=name,
        symbol=source.symbol,
        digest=digest,
        num_warps=source.num_warps,
        shared_bytes=dynamic_shared_bytes,
        static_shared_bytes=usage.static_shared_bytes,
        registers=usage.registers,
        trailing_nulls=trailing_nulls,
    )
