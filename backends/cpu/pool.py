"""The native library in this process: kernels by name, and threads that run lists of them.

Loads no other library than those that come with the package, and only where the processor has what
they were built for.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import weakref
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from lostwax.backends.cpu.library import libraries
from lostwax.backends.cpu.processor import processor_features as _processor_features
from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.backends.runtime.driver import DeviceUnavailable
from lostwax.backends.runtime.kernel_parameters import PackedParameters

MOST_THREADS = 255
TILES = {"amx_tile", "amx_bf16"}
"""What a process must ask the system for before it may use it, by Linux's names."""


class _Record(ctypes.Structure):
    """What `pool.cpp` reads of a launch."""

    _fields_ = (("kernel", ctypes.c_void_p), ("params", ctypes.c_void_p))


class _List(ctypes.Structure):
    """The same of a list."""

    _fields_ = (("records", ctypes.POINTER(_Record)), ("count", ctypes.c_int64))


class NativeLaunch(NamedTuple):
    """A kernel, its parameters, and what each thread of it takes beside."""

    kernel: int
    parameters: PackedParameters
    scratch_bytes: int
    keeps: object
    """What the parameters' addresses point into."""


class StepList:
    """Launches that run as one call."""

    def __init__(self, pool: NativePool, launches: Sequence[NativeLaunch]) -> None:
        self.pool = pool
        self.launches = tuple(launches)
        self._list = pool.listed(self.launches)

    def __call__(self) -> None:
        """Run them in order; returns when the last has run."""
        self.pool.run(self._list)


class NativePool:
    """One library, and threads for it that are made when more than one is asked for."""

    def __init__(self, arch: str, content: bytes) -> None:
        """Raises ArtifactError for a library that is none of the package's, DeviceUnavailable on
        a processor that it is not for."""
        library = libraries().get(arch)
        if library is None or hashlib.sha256(content).hexdigest() != library.digest:
            raise ArtifactError(
                "the native library in the artifact is none of this version of lostwax: recompile"
                " the artifact with it"
            )
        here = _processor_features()
        _require(arch, library.features, here)
        self._library = _loaded(content)
        if not self._library.allow_tiles():
            here -= TILES
        better = (suffix for suffix, more in library.more.items() if here >= set(more))
        self.suffix = next(better, library.suffix)
        self._library.pool_create.restype = ctypes.c_void_p
        for name in ("pool_create", "pool_destroy", "pool_reserve", "run_step"):
            getattr(self._library, name)  # an AttributeError now
        self._threads = 1
        self._most = 0
        self._reserved = (1, 1)
        self._lists: list[object] = []
        self._pool = ctypes.c_void_p()
        self._end = weakref.finalize(self, lambda: None)
        self._create(1)

    def kernel(self, symbol: str) -> int:
        """The address of a kernel, of the best that this processor has. Raises ArtifactError where
        there is no such symbol."""
        try:
            own = getattr(self._library, symbol + self.suffix)
            found = ctypes.cast(own, ctypes.c_void_p).value
        except AttributeError as error:
            raise ArtifactError(
                f"the native library has no kernel {symbol!r}, which a program launches; recompile"
                " the artifact"
            ) from error
        assert found is not None
        return found

    def use_threads(self, count: int) -> None:
        """Run what follows on so many threads, the caller's among them."""
        threads = min(count, MOST_THREADS)
        if threads > self._most:
            self._create(threads)
        self._threads = threads

    def listed(self, launches: Sequence[NativeLaunch]) -> _List:
        """Launches as the library reads them, and room for what they take.

        They live as long as the pool: a thread that comes late still reads of them.
        """
        records = (_Record * len(launches))(
            *(
                _Record(each.kernel, ctypes.addressof(each.parameters.addresses))
                for each in launches
            )
        )
        found = _List(records, len(launches))
        self._lists.append((found, records, launches))
        self._reserve(len(launches), max(each.scratch_bytes for each in launches))
        return found

    def _reserve(self, launches: int, scratch_bytes: int) -> None:
        self._reserved = (
            max(self._reserved[0], launches),
            max(self._reserved[1], scratch_bytes),
        )
        counts = map(ctypes.c_int64, self._reserved)
        if self._library.pool_reserve(self._pool, *counts):
            raise MemoryError(f"{scratch_bytes} bytes for each of {self._most} threads")

    def run(self, launches: _List) -> None:
        """Run a list's launches in order."""
        self._library.run_step(self._pool, ctypes.byref(launches), self._threads)

    def _create(self, most: int) -> None:
        made = ctypes.c_void_p(self._library.pool_create(most))
        if not made:  # what it had still runs
            raise DeviceUnavailable(f"the system gives no {most} threads; ask for fewer")
        self._end()
        self._pool = made
        self._most = most
        self._end = weakref.finalize(self, self._library.pool_destroy, self._pool)
        self._reserve(*self._reserved)


@cache
def _loaded(content: bytes) -> ctypes.CDLL:
    """The library from memory: what was verified is what runs, and no disk need be writable. Once
    a process, as its file stays open; it has no state of its own."""
    # It stays open: a name that was loaded is that library to the linker, whatever lies there now.
    file = os.memfd_create("lostwax-native")
    with os.fdopen(os.dup(file), "wb") as out:
        out.write(content)
    return ctypes.CDLL(f"/proc/self/fd/{file}")


def _require(arch: str, features: Sequence[str], here: set[str]) -> None:
    missing = [name for name in features if name not in here]
    if missing:
        raise DeviceUnavailable(
            f"the artifact's kernels are for {arch}, and this processor lacks"
            f" {', '.join(missing)}; compile the model for another target"
        )
