"""What torch gives alike of every device that runs streams: memory, marks, captured graphs.

Asks torch's module of the device kind (`torch.cuda`, `torch.npu`), whose names are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from lostwax.backends.runtime.driver import Mark, Thunk, one_by_one
from lostwax.backends.runtime.torch_memory import TorchMemory

_WARM_UPS = 2  # the first call creates library handles, which capture forbids; the second is clean


class _EventMark:
    """An event of the current stream, recorded now."""

    def __init__(self, event: Any) -> None:  # each kind of device has a class of its own
        self._event = event
        self._event.record()

    @property
    def passed(self) -> bool:
        """Asks the event."""
        return bool(self._event.query())

    def wait(self) -> None:
        """Waits for the event, not for what was launched behind it."""
        self._event.synchronize()


class StreamDevice:
    """The part of `runtime.driver.Driver` that is no vendor's own.

    `module` is torch's of the device kind, `graph` its class of captured graphs.
    """

    def __init__(self, device: torch.device, module: Any, graph: Any) -> None:
        self._device = device
        self._module = module
        self._graph = graph
        self._stream: Any = None
        self._pool: Any = None
        self._first_graph: Any = None

    @property
    def device(self) -> torch.device:
        """Where buffers lie."""
        return self._device

    @property
    def memory(self) -> TorchMemory:
        """Tensors."""
        return TorchMemory(self)

    @property
    def device_name(self) -> str:
        """The device's model, as its maker's driver names it."""
        return str(self._module.get_device_name(self._device))

    def allocate(self, num_bytes: int) -> torch.Tensor:
        """A zeroed u8 [num_bytes] buffer; torch's allocator aligns to 512 bytes."""
        return torch.zeros(num_bytes, dtype=torch.uint8, device=self._device)

    def staging(self, num_bytes: int) -> torch.Tensor:
        """A u8 [num_bytes] buffer of pinned host memory."""
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)

    def capture(self, launches: Sequence[Thunk]) -> Thunk:
        """Warm up, then record the launches as one device graph."""
        module = self._module
        if self._stream is None:
            self._stream, self._pool = module.Stream(self._device), module.graph_pool_handle()
        self._stream.wait_stream(module.current_stream())
        with module.stream(self._stream):
            for _ in range(_WARM_UPS):
                for launch in launches:
                    launch()
        self._stream.synchronize()
        graph = self._graph()
        # One pool for all graphs: they never run at once and nothing in it outlives a replay.
        with module.graph(graph, pool=self._pool, stream=self._stream):
            for launch in launches:
                launch()
        # torch refuses a pool whose last graph has died: the first one keeps it usable.
        self._first_graph = self._first_graph or graph
        return graph.replay

    def joined(self, launches: Sequence[Thunk]) -> Sequence[tuple[int, Thunk]]:
        """One call each: what is captured needs no other."""
        return one_by_one(launches)

    def use_threads(self, count: int) -> None:
        """Nothing: the host does not compute."""

    def running(self) -> AbstractContextManager[object]:
        """torch's mode for what is never differentiated."""
        return torch.inference_mode()

    def mark(self) -> Mark:
        """An event behind what the current stream was given."""
        return _EventMark(self._module.Event())

    def synchronize(self) -> None:
        """Wait until everything launched has finished."""
        self._module.synchronize(self._device)
