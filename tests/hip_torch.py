"""Stands where torch.cuda stands in a ROCm build of torch: what is asked of it, and nothing else.

Devices are those that it has, nothing is allocated while a graph records, a graph replays once it
was recorded, an event is asked once it was recorded. Memory is the host's. No AMD GPU was there.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch

ZEROS = torch.zeros
ROCM = "7.0.51831"


@dataclass(frozen=True)
class Properties:
    """What torch 2.13 gives of a device there, in its words."""

    name: str
    gcnArchName: str
    major: int = 9
    minor: int = 4
    total_memory: int = 192 << 30
    multi_processor_count: int = 304
    warp_size: int = 64


MI300X = Properties("AMD Instinct MI300X", "gfx942:sramecc+:xnack-")


class Stream:
    """A queue of the device, by its number."""

    def __init__(self, hip: Hip, name: str, number: int) -> None:
        self._hip, self.name, self.cuda_stream = hip, name, number

    def wait_stream(self, other: Stream) -> None:
        self._hip.log.append(f"{self.name} waits for {other.name}")

    def synchronize(self) -> None:
        self._hip.log.append(f"{self.name} has ended")


class Event:
    """Known to have passed once somebody waited."""

    def __init__(self) -> None:
        self._state = ""

    def record(self) -> None:
        self._state = "recorded"

    def query(self) -> bool:
        assert self._state, "hipErrorInvalidHandle"
        return self._state == "passed"

    def synchronize(self) -> None:
        assert self._state, "hipErrorInvalidHandle"
        self._state = "passed"


class Graph:
    """Replays what it recorded."""

    def __init__(self) -> None:
        self.recorded = False

    def replay(self) -> None:
        assert self.recorded, "a graph without a node"


class Hip(ModuleType):
    """torch.cuda of such a build."""

    CUDAGraph = Graph
    Event = Event

    def __init__(self, *devices: Properties) -> None:
        super().__init__("torch.cuda")
        self._devices = devices
        self._main, self._side = Stream(self, "main", 0x10), Stream(self, "side", 0x20)
        self._current = self._main
        self.log: list[str] = []
        self.has_context = self.records = False

    def is_available(self) -> bool:
        return bool(self._devices)

    def current_device(self) -> int:
        self._device(0)
        return 0

    def get_device_properties(self, device: torch.device) -> Properties:
        return self._device(device.index)

    def get_device_name(self, device: torch.device) -> str:
        return self._device(device.index).name

    def _device(self, number: int | None) -> Properties:
        if number is None or number >= len(self._devices):
            raise RuntimeError("HIP error: invalid device ordinal")
        return self._devices[number]

    def synchronize(self, device: torch.device) -> None:
        assert not self.records, "hipErrorStreamCaptureUnsupported"
        self.log.append(f"{device} has ended")

    def Stream(self, device: torch.device) -> Stream:
        self._device(device.index)
        return self._side

    def current_stream(self) -> Stream:
        return self._current

    @contextmanager
    def stream(self, stream: Stream) -> Generator[None]:
        before, self._current = self._current, stream
        yield
        self._current = before

    def graph_pool_handle(self) -> tuple[int, int]:
        return (0, 7)

    @contextmanager
    def graph(self, graph: Graph, *, pool: tuple[int, int], stream: Stream) -> Generator[None]:
        assert pool == (0, 7)
        assert not self.records, "one graph at a time"
        with self.stream(stream):
            self.records = True
            yield
        self.records, graph.recorded = False, True

    def zeros(self, *shape: int, device: Any = None, **given: Any) -> torch.Tensor:
        """torch.zeros: of a device it makes the context, and lies in the host's memory here."""
        if isinstance(device, torch.device) and device.type == "cuda":
            self._device(device.index)
            assert not self.records, "hipErrorStreamCaptureUnsupported"
            self.has_context = True
            device = None
        return ZEROS(*shape, device=device, **given)


def install(patch: pytest.MonkeyPatch, hip: Hip, rocm: str | None = ROCM) -> None:
    """Let torch be such a build; `rocm` None is one for NVIDIA's GPUs."""
    patch.setattr(torch, "cuda", hip)
    patch.setattr(torch.version, "hip", rocm, raising=False)
    patch.setattr(torch.version, "cuda", None if rocm else "13.0")
    patch.setattr(torch, "zeros", hip.zeros)
