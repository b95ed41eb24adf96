"""Reads what a code object says of itself: registers, LDS, parameters. Knows no compiler."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from lostwax.backends.gpu_kernels.binary import Usage
from lostwax.backends.gpu_kernels.elf import notes

_METADATA = 32  # NT_AMDGPU_METADATA: the code object's description in msgpack (ABI version 3 on)


class _Parameter(msgspec.Struct):
    value_kind: str = msgspec.field(name=".value_kind")


class _Kernel(msgspec.Struct):
    name: str = msgspec.field(name=".name")
    registers: int = msgspec.field(name=".vgpr_count")
    lds_bytes: int = msgspec.field(name=".group_segment_fixed_size")
    scratch_bytes: int = msgspec.field(name=".private_segment_fixed_size")
    spilled: int = msgspec.field(name=".vgpr_spill_count", default=0)
    accumulators: int = msgspec.field(name=".agpr_count", default=0)
    parameters: list[_Parameter] = msgspec.field(name=".args", default_factory=list[_Parameter])


class _CodeObject(msgspec.Struct):
    kernels: list[_Kernel] = msgspec.field(name="amdhsa.kernels")


def _kernel(hsaco: bytes, symbol: str) -> _Kernel:
    names: list[str] = []
    for owner, kind, content in notes(hsaco):
        if owner == b"AMDGPU" and kind == _METADATA:
            described = msgspec.msgpack.decode(content, type=_CodeObject)
            for kernel in described.kernels:
                if kernel.name == symbol:
                    return kernel
                names.append(kernel.name)
    raise ValueError(f"the code object holds no kernel {symbol!r}, only {names}")


def kernel_usage(hsaco: bytes, symbol: str) -> Usage:
    """What the kernel `symbol` takes: vector registers of a lane, static LDS of a workgroup."""
    kernel = _kernel(hsaco, symbol)
    return Usage(kernel.registers, kernel.lds_bytes)


@dataclass(frozen=True, slots=True)
class Figures:
    """What tells a slow code object: of a lane its vector registers, those of them that only the
    matrix units and copies reach, those kept in memory instead; bytes of that memory."""

    registers: int
    accumulators: int
    spilled: int
    scratch_bytes: int


def figures(hsaco: bytes, symbol: str) -> Figures:
    """Those of the kernel `symbol`; ValueError where there is none."""
    kernel = _kernel(hsaco, symbol)
    return Figures(kernel.registers, kernel.accumulators, kernel.spilled, kernel.scratch_bytes)


def parameters_of(hsaco: bytes, symbol: str) -> int:
    """Parameters that a launch passes; hidden ones are the runtime's."""
    return sum(not p.value_kind.startswith("hidden") for p in _kernel(hsaco, symbol).parameters)
