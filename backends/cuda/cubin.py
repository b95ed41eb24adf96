"""Reads what a cubin says of itself: registers and static shared memory. Knows no compiler."""

from __future__ import annotations

import struct

from lostwax.backends.gpu_kernels.binary import Usage
from lostwax.backends.gpu_kernels.elf import Section, sections

_REGISTER_COUNT = 0x2F  # EIATTR_REGCOUNT of section .nv.info: (symbol index, registers)
_RESERVED_SECTION = ".nv.shared.reserved.0"
_RESERVED_BYTES = 1024  # of the system, at the front; the blocks' limit does not count them
_SIZED_VALUE = 0x04  # format byte of attributes that carry a length and a payload


def _attributes(cubin: bytes, section: Section) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    at, end = section.offset, section.offset + section.num_bytes
    while at + 4 <= end:
        encoding, kind, value = struct.unpack_from("<BBH", cubin, at)
        at += 4
        if encoding == _SIZED_VALUE:
            found.append((kind, cubin[at : at + value]))
            at += value
    return found


def _static_shared_bytes(found: list[Section], symbol: str) -> int:
    """What the kernel declares itself: ptxas of CUDA 12 and 13 counts the system's with it."""
    counted = next((s.num_bytes for s in found if s.name == f".nv.shared.{symbol}"), 0)
    has_reserved = any(s.name == _RESERVED_SECTION for s in found)
    return max(counted - _RESERVED_BYTES, 0) if has_reserved else counted


def kernel_usage(cubin: bytes, symbol: str) -> Usage:
    """What the kernel `symbol` takes; ValueError if the cubin does not hold it."""
    found = sections(cubin)
    code = next((s for s in found if s.name == f".text.{symbol}"), None)
    if code is None:
        kernels = [s.name.removeprefix(".text.") for s in found if s.name.startswith(".text.")]
        raise ValueError(f"the cubin holds no kernel {symbol!r}, only {kernels}")
    shared = _static_shared_bytes(found, symbol)
    symbol_index = code.info & 0xFFFFFF  # sh_info of a code section: registers << 24 | symbol
    for section in found:
        if section.name == ".nv.info":
            for kind, payload in _attributes(cubin, section):
                if kind == _REGISTER_COUNT and len(payload) == 8:
                    index, registers = struct.unpack("<II", payload)
                    if index == symbol_index:
                        return Usage(registers, shared)
    return Usage(code.info >> 24, shared)
