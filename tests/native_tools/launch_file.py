"""Launches of native kernels with the memory that they work on, as `replay.cpp` reads them.

A file is a count, then launches: a symbol (its length before it), bytes of scratch, pieces of
memory (a count, then each one's size and content), parameters (a count, then for each the memory
that it points into, or -1, and where in it, or its bits). What is written back is all memory, in
order. All numbers are i64. Runs nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Place:
    """Where a parameter points: which memory, and how far into it; or none, and its bits."""

    memory: int
    value: int


@dataclass(frozen=True)
class Recorded:
    """One launch. `dtypes`: of each piece of memory, the element type; `rows`: which of them is the
    number of real rows, if one is."""

    symbol: str
    scratch_bytes: int
    memory: list[Bytes]
    dtypes: list[str]
    params: list[Place]
    rows: int | None


def _numbers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def write(path: Path, launches: Iterable[Recorded]) -> None:
    """Write the file."""
    held = list(launches)
    with path.open("wb") as out:
        out.write(_numbers(len(held)))
        for each in held:
            name = each.symbol.encode()
            out.write(_numbers(len(name)) + name)
            out.write(_numbers(each.scratch_bytes, len(each.memory)))
            for memory in each.memory:
                out.write(_numbers(len(memory)) + memory.tobytes())
            out.write(_numbers(len(each.params)))
            for param in each.params:
                out.write(_numbers(param.memory, param.value))


def read_back(path: Path, launches: Iterable[Recorded]) -> Iterator[list[Bytes]]:
    """What each launch's memory held afterwards."""
    content, at = np.frombuffer(path.read_bytes(), np.uint8), 0
    for each in launches:
        found: list[Bytes] = []
        for memory in each.memory:
            found.append(content[at : at + len(memory)])
            at += len(memory)
        yield found
    assert at == len(content), "another file than these launches wrote"
