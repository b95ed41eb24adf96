"""Sections and notes of an ELF file, the format of device binaries. Knows no vendor."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

ELF_MAGIC = b"\x7fELF"
_NOTE = 7  # SHT_NOTE


@dataclass(frozen=True, slots=True)
class Section:
    """One section: `info` is sh_info, whose meaning is the vendor's."""

    name: str
    kind: int
    offset: int
    num_bytes: int
    info: int


def sections(elf: bytes) -> list[Section]:
    """The sections of a 64-bit little-endian ELF file; ValueError for anything else."""
    if not elf.startswith(ELF_MAGIC):
        raise ValueError("not a device binary: the file does not begin with the ELF magic")
    table, entry_bytes, count, names_index = struct.unpack_from("<Q10xHHH", elf, 0x28)
    raw = [struct.unpack_from("<IIQQQQII", elf, table + i * entry_bytes) for i in range(count)]
    names = raw[names_index][4]

    def name(at: int) -> str:
        return elf[names + at : elf.index(b"\0", names + at)].decode()

    return [Section(name(r[0]), r[1], r[4], r[5], r[7]) for r in raw]


def notes(elf: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """(owner, type, content) of every note."""
    for section in sections(elf):
        if section.kind != _NOTE:
            continue
        at, end = section.offset, section.offset + section.num_bytes
        while at + 12 <= end:
            owner_bytes, content_bytes, kind = struct.unpack_from("<III", elf, at)
            owner = elf[at + 12 : at + 12 + owner_bytes].rstrip(b"\0")
            start = at + 12 + -(-owner_bytes // 4) * 4
            yield owner, kind, elf[start : start + content_bytes]
            at = start + -(-content_bytes // 4) * 4
