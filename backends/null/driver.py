"""Binds programs and computes none, but for the ids: the engine gets an answer to follow."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from lostwax.backends.runtime.driver import (
    Mark,
    Passed,
    ReadKernel,
    Resolve,
    Thunk,
    one_by_one,
)
from lostwax.backends.runtime.host_memory import HostMemory, zeroed
from lostwax.backends.runtime.memory import Array
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.program import HostCall, Launch
from lostwax.ir.contract.target import Target

PICK = "lostwax.backends.portable.kernels.sample:pick"


def _nothing() -> None:
    """What every launch does here."""


class NullDriver:
    """Satisfies `lostwax.backends.runtime.driver.Driver`.

    The token that a row gives is (counter + seed) modulo the vocabulary, so that greedy requests
    count upwards and a test can say what must come. Other outputs stay zero.
    """

    def __init__(
        self, target: Target, kernels: ReadKernel, compiled: dict[str, CompiledKernel]
    ) -> None:
        self._target = target

    @property
    def memory(self) -> HostMemory:
        """numpy's, so that binding is as on the CPU."""
        return HostMemory()

    @property
    def device_name(self) -> str:
        """No device."""
        return "null"

    @property
    def fingerprint(self) -> str:
        """No device."""
        return "null"

    def allocate(self, num_bytes: int) -> Array:
        """A zeroed u8 [num_bytes] buffer; the pages are not touched until somebody writes."""
        return zeroed(num_bytes)

    def staging(self, num_bytes: int) -> Array:
        """Any buffer: memory is the host's."""
        return self.allocate(num_bytes)

    def bind(self, launch: Launch, resolve: Resolve) -> Thunk:
        """Nothing, or for the head's choice the counted ids."""
        if not isinstance(launch, HostCall) or not launch.function.startswith(PICK):
            return _nothing
        array_at = self.memory.array_at
        arrays = [array_at(resolve(view)) for view in launch.args if view is not None]
        logits, _, seeds, counters, found, _ = arrays
        vocab = logits.shape[1]

        def count() -> None:
            np.remainder(counters + seeds, vocab, out=found)

        return count

    def capture(self, launches: Sequence[Thunk]) -> Thunk:
        """The launches that do something."""
        busy = tuple(launch for launch in launches if launch is not _nothing)

        def replay() -> None:
            for launch in busy:
                launch()

        return replay

    def joined(self, launches: Sequence[Thunk]) -> Sequence[tuple[int, Thunk]]:
        """One call each: what is captured needs no other."""
        return one_by_one(launches)

    def use_threads(self, count: int) -> None:
        """Nothing: the host does not compute."""

    def running(self) -> AbstractContextManager[object]:
        """Anything."""
        return nullcontext()

    def mark(self) -> Mark:
        """Passed: a launch returns when it has run."""
        return Passed()

    def synchronize(self) -> None:
        """Nothing runs."""
