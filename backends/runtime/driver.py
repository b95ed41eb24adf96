"""What a target's driver gives the runtime: memory, bound launches, capture. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

from lostwax.backends.runtime.memory import Buffer, DeviceMemory, Place
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.contract.target import Target

Resolve: TypeAlias = Callable[[View], Place]
Thunk = Callable[[], None]
ReadKernel = Callable[[str], bytes]
"""The verified bytes of a file of the artifact's `kernels/`, by its name there."""


def no_kernels(binary: str) -> bytes:
    """For a driver that is to launch no kernel of any artifact."""
    raise KeyError(binary)


class DeviceUnavailable(RuntimeError):
    """The artifact's target needs a device or a driver that this machine lacks.

    `lack` is the message without the remedy behind it, which goes where the cause is another.
    """

    def __init__(self, lack: str, remedy: str = "") -> None:
        super().__init__(f"{lack}: {remedy}" if remedy else lack)
        self.lack = lack


class Mark(Protocol):
    """A place in the order of all that a device was given."""

    @property
    def passed(self) -> bool:
        """Whether everything before it has run; never waits, raises what the device failed with."""
        ...

    def wait(self) -> None:
        """Return once everything before it has run, or raise what the device failed with."""
        ...


class Passed:
    """The mark of a device on which whatever was launched has run."""

    passed = True

    def wait(self) -> None:
        """Nothing is awaited."""


def walked(launches: Sequence[Thunk]) -> Thunk:
    """The sequence itself, for a target that captures nothing."""
    sequence = tuple(launches)

    def walk() -> None:
        for launch in sequence:
            launch()

    return walk


def one_by_one(launches: Sequence[Thunk]) -> Sequence[tuple[int, Thunk]]:
    """What a driver that joins nothing gives for `joined`."""
    return [(1, launch) for launch in launches]


class Driver(Protocol):
    """One device. Its `memory` says what a buffer of it is.

    `bind` turns a launch into a call without arguments, doing now whatever need not be done at
    every replay (resolving views, importing the function, loading the binary, packing parameters).
    `capture` runs a sequence of calls once (after a warm-up) and returns its replay; on a target
    that walks, that is the sequence itself. What a call raises in the warm-up leaves it as it is.
    """

    def __init__(
        self, target: Target, kernels: ReadKernel, compiled: dict[str, CompiledKernel]
    ) -> None:
        """Raise DeviceUnavailable with the remedy where the device cannot be used.

        `kernels` reads the artifact's binaries, `compiled` are their descriptions by file name.
        """
        ...

    @property
    def memory(self) -> DeviceMemory:
        """What can be done with its buffers."""
        ...

    @property
    def device_name(self) -> str:
        """The device's model, as its maker's driver names it (`runtime/sku.py`)."""
        ...

    @property
    def fingerprint(self) -> str:
        """What makes this device and its libraries give the numbers they give, in words."""
        ...

    def allocate(self, num_bytes: int) -> Buffer:
        """A zeroed u8 [num_bytes] buffer, aligned to 256 bytes."""
        ...

    def staging(self, num_bytes: int) -> Buffer:
        """A u8 [num_bytes] buffer of host memory; copies from there to the device do not wait."""
        ...

    def bind(self, launch: Launch, resolve: Resolve) -> Thunk:
        """The launch over resolved memory; raises ValueError for a function outside the target."""
        ...

    def capture(self, launches: Sequence[Thunk]) -> Thunk:
        """One call that replays the launches in order."""
        ...

    def joined(self, launches: Sequence[Thunk]) -> Sequence[tuple[int, Thunk]]:
        """The launches in order, as few calls, with how many of them each call runs."""
        ...

    def use_threads(self, count: int) -> None:
        """Compute on so many threads of the host, where it computes."""
        ...

    def running(self) -> AbstractContextManager[object]:
        """What programs are bound, captured and replayed within."""
        ...

    def mark(self) -> Mark:
        """A mark behind everything launched so far."""
        ...

    def synchronize(self) -> None:
        """Wait until everything launched has finished."""
        ...
