"""Records launches of native kernels while tests run them. Knows no lowering and no kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from native_tools.launch_file import Bytes, Place, Recorded

from lostwax.backends.cpu import driver
from lostwax.backends.cpu.pool import NativePool, StepList
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.parameter import Pointer, Scalar
from lostwax.ir.contract.program import View


class Span(NamedTuple):
    """What a parameter points to: its memory, and what lies there."""

    start: int
    size: int
    dtype: str
    shape: tuple[int, ...]
    name: str


def _span(view: View, place: Any) -> Span:
    """What a view has of memory; of a cache, as many pages as lie there."""
    size, shape = view.span_bytes, tuple(view.shape)
    if shape[:1] == (-1,):
        size = place.shape[0] * view.strides[0] * DTYPE_BYTES[view.dtype]
    return Span(place.data_ptr(), size, view.dtype, shape, view.name)


class Recorder:
    """Up to `most` launches of each kernel with the same numbers."""

    def __init__(self, most: int) -> None:
        self.launches: list[Recorded] = []
        self._most = most
        self._seen: dict[object, int] = {}
        self._symbols: dict[int, str] = {}
        self._given: dict[int, tuple[Any, list[Span | int]]] = {}

    def kernel(self, address: int, symbol: str) -> None:
        """A symbol has been found."""
        self._symbols[address] = symbol

    def given(self, packed: Any, params: Sequence[object], places: Sequence[Any]) -> None:
        """What a launch was given."""
        left = iter(places)
        spans = [_span(p.view, next(left)) if isinstance(p, Pointer) else _bits(p) for p in params]
        self._given[id(packed)] = (packed, spans)  # kept, so that the number stays its own

    def run(self, launch: Any) -> None:
        """A launch is about to run."""
        spans = self._given[id(launch.parameters)][1]
        symbol = self._symbols[launch.kernel]
        key = (symbol, tuple(s if isinstance(s, int) else s[1:4] for s in spans))
        self._seen[key] = self._seen.get(key, 0) + 1
        if self._seen[key] <= self._most:
            self.launches.append(_recorded(symbol, launch.scratch_bytes, spans))


def _bits(param: object) -> int:
    if not isinstance(param, Scalar):
        return 0
    if param.kind == "f32":
        return int(np.float32(param.value).view(np.uint32))
    return int(param.value) & 0xFFFF_FFFF


def _content(start: int, end: int) -> Bytes:
    return np.ctypeslib.as_array((ctypes.c_ubyte * (end - start)).from_address(start)).copy()


def _recorded(symbol: str, scratch_bytes: int, spans: Sequence[Span | int]) -> Recorded:
    """Memory that parameters share is one piece: they overlap."""
    pieces: list[tuple[int, int, str]] = []
    pointers = [s for s in spans if not isinstance(s, int)]
    for start, size, dtype, *_ in sorted(pointers):
        if pieces and start < pieces[-1][1]:
            pieces[-1] = (pieces[-1][0], max(pieces[-1][1], start + size), pieces[-1][2])
        else:
            pieces.append((start, start + size, dtype))

    def place(span: Span | int) -> Place:
        if isinstance(span, int):
            return Place(-1, span)
        # the last that begins there or before: one without elements begins nothing else
        found = max(i for i, (start, _, _) in enumerate(pieces) if start <= span.start)
        return Place(found, span.start - pieces[found][0])

    params = [place(span) for span in spans]
    rows = next(
        (
            p.memory
            for p, s in zip(params, spans, strict=True)
            if isinstance(s, Span) and s.name.endswith("num_rows")
        ),
        None,
    )
    memory = [_content(start, end) for start, end, _ in pieces]
    return Recorded(symbol, scratch_bytes, memory, [d for *_, d in pieces], params, rows)


@contextmanager
def recording(most: int = 1) -> Generator[Recorder]:
    """Launches run one by one meanwhile, and are recorded before."""
    recorder = Recorder(most)
    over_memory, kernel, call = driver.over_memory, NativePool.kernel, StepList.__call__

    def given(params: Sequence[Any], *rest: Any) -> tuple[Any, Any]:
        packed, places = over_memory(params, *rest)
        recorder.given(packed, params, places)
        return packed, places

    def found(pool: NativePool, symbol: str) -> int:
        address = kernel(pool, symbol)
        recorder.kernel(address, symbol)
        return address

    def run(steps: StepList) -> None:
        for launch in steps.launches:
            recorder.run(launch)
            call(StepList(steps.pool, (launch,)))

    with (
        patch.object(driver, "over_memory", given),
        patch.object(NativePool, "kernel", found),
        patch.object(StepList, "__call__", run),
    ):
        yield recorder
