"""Reads what a cubin says of itself: registers and static shared memory. Knows no compiler."""

from __future__ import annotations

import struct
from dataclasses import dataclass

ELF_MAGIC = b"\x7fELF"
_REGISTER_COUNT = 0x2F  # EIATTR_REGCOUNT of section .nv.info: (symbol index, registers)
_SIZED_VALUE = 0x04  # format byte of attributes that carry a length and a payload


@dataclass(frozen=True, slots=True)
class Usage:
    """Resources of one kernel: registers of a thread, bytes of static shared memory of a block."""

    registers: int
    static_shared_bytes: int


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    kind: int
    offset: int
    num_bytes: int
    info: int


def _sections(cubin: bytes) -> list[_Section]:
    table, entry_bytes, count, names_index = struct.unpack_from("<Q10xHHH", cubin, 0x28)
    raw = [struct.unpack_from("<IIQQQQII", cubin, table + i * entry_bytes) for i in range(count)]
    names = raw[names_index][4]

    def name(at: int) -> str:
        return cubin[names + at : cubin.index(b"\0", names + at)].decode()

    return [_Section(name(r[0]), r[1], r[4], r[5], r[7]) for r in raw]


def _attributes(cubin: bytes, section: _Section) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    at, end = section.offset, section.offset + section.num_bytes
    while at + 4 <= end:
        encoding, kind, value = struct.unpack_from("<BBH", cubin, at)
        at += 4
        if encoding == _SIZED_VALUE:
            found.append((kind, cubin[at : at + value]))
            at += value
    return found


def kernel_usage(cubin: bytes, symbol: str) -> Usage:
    """What the kernel `symbol` takes; ValueError if the cubin does not hold it."""
    if not cubin.startswith(ELF_MAGIC):
        raise ValueError("not a cubin: the file does not begin with the ELF magic")
    sections = _sections(cubin)
    code = next((s for s in sections if s.name == f".text.{symbol}"), None)
    if code is None:
        kernels = [s.name.removeprefix(".text.") for s in sections if s.name.startswith(".text.")]
        raise ValueError(f"the cubin holds no kernel {symbol!r}, only {kernels}")
    shared = next((s.num_bytes for s in sections if s.name == f".nv.shared.{symbol}"), 0)
    symbol_index = code.info & 0xFFFFFF  # sh_info of a code section: registers << 24 | symbol
    for section in sections:
        if section.name == ".nv.info":
            for kind, payload in _attributes(cubin, section):
                if kind == _REGISTER_COUNT and len(payload) == 8:
                    index, registers = struct.unpack("<II", payload)
                    if index == symbol_index:
                        return Usage(registers, shared)
    return Usage(code.info >> 24, shared)
