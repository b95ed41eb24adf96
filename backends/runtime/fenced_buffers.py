"""A buffer of its own for every value of a lowering that runs by itself. Runs and compares nothing.

What is not given starts as 0xFF bytes (NaN), so that what a lowering forgets to write shows; a
zeroed workspace starts as zeros, and must end so. A fence behind every buffer catches writes beyond
its end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.memory import Buffer, Content, Place
from lostwax.ir.contract.program import Launch, View, views_of
from lostwax.ir.reference.dtype import NUMPY_DTYPES, Array

FENCE_BYTES = 256
_FENCE = 0xA5


class BadWrite(AssertionError):
    """A lowering left memory as it may not; the message names the buffer."""


class Overrun(BadWrite):
    """It wrote beyond the end of a buffer."""


class NotLeftZero(BadWrite):
    """It did not leave its zeroed workspace zero, on which the next launch relies."""


def _reach(launches: Sequence[Launch]) -> dict[tuple[str, str], int]:
    """The last byte that any launch is given, by buffer."""
    found: dict[tuple[str, str], int] = {}
    for launch in launches:
        for view in views_of(launch):
            key = (view.space, view.name)
            found[key] = max(found.get(key, 0), view.offset + view.span_bytes)
    return found


class FencedBuffers:
    """Fenced buffers by (space, name), filled from the inputs when they are first asked for.

    What is not given is as large as the launches reach: a workspace is cut into several views.
    """

    def __init__(
        self,
        driver: Driver,
        given: Mapping[str, Array | Content],
        launches: Sequence[Launch] = (),
    ) -> None:
        self._driver = driver
        self._memory = driver.memory
        self._given = {
            name: each if isinstance(each, Content) else self._bytes_of(each)
            for name, each in given.items()
        }
        self._reach = _reach(launches)
        self._whole: dict[tuple[str, str], Buffer] = {}
        self._used: dict[tuple[str, str], Buffer] = {}

    def _bytes_of(self, array: Array) -> Content:
        return Content(array.nbytes, lambda buffer: self._memory.put(buffer, array))

    def resolve(self, view: View) -> Place:
        """The view in its buffer."""
        key = (view.space, view.name)
        if key not in self._used:
            given = self._given.get(view.name)
            reach = max(view.num_bytes, self._reach.get(key, 0))
            size = reach if given is None else given.num_bytes
            whole = self._driver.allocate(size + FENCE_BYTES)
            whole[:size] = 0 if view.space == "zeroed" else 0xFF
            whole[size:] = _FENCE
            if given is not None and size:
                given.put(whole[:size])
            self._whole[key], self._used[key] = whole, whole[:size]
        return self._memory.place(self._used[key], view)

    def read(self, view: View) -> Array:
        """The view's contents, which are dense."""
        self.resolve(view)
        raw = self._memory.read(self._used[view.space, view.name]).tobytes()
        flat = np.frombuffer(raw, NUMPY_DTYPES[view.dtype])
        return flat.reshape(view.shape).copy()

    def samples(self, view: View, at: Sequence[int], columns: Sequence[int]) -> Array:
        """The view's numbers in these rows of its first axis, and in these columns of the others.

        [rows, columns]; all columns where there are none.
        """
        wanted = np.array(at, np.int64), np.array(columns, np.int64)
        return self._memory.samples(self.resolve(view), *wanted).view(NUMPY_DTYPES[view.dtype])

    def strays(self, view: View, rows: int) -> tuple[bool, bool]:
        """Whether the first `rows` rows hold NaN, and whether they hold an infinity."""
        return self._memory.strays(self.resolve(view), rows)

    def check_left(self) -> None:
        """Raise Overrun for a buffer that something was written behind, NotLeftZero for zeroed
        memory that holds anything else."""
        for key, whole in self._whole.items():
            if bool((whole[self._used[key].nbytes :] != _FENCE).any()):
                raise Overrun(f"{key[1] or key[0]} was written beyond its end")
        for (space, _), used in self._used.items():
            if space == "zeroed" and bool(used.any()):
                count = int((used != 0).sum())
                raise NotLeftZero(
                    f"{count} bytes of its zeroed workspace are not zero after its launches"
                )
