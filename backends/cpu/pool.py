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
from pathlib import Path
from typing import NamedTuple

from lostwax.backends.cpu.library import libraries
from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.backends.runtime.driver import DeviceUnavailable
from lostwax.backends.runtime.kernel_parameters import PackedParameters

MOST_THREADS = 255


class _Record(ctypes.Structure):
    """What `pool.cpp` reads of a launch."""

    _fields_ = (("kernel", ctypes.c_void_p), ("params", ctypes.c_void_p))


class NativeLaunch(NamedTuple):
    """A kernel, its parameters, and what each thread of it takes beside."""

    kernel: int
    parameters: PackedParameters
    scratch_bytes: int
    keeps: object
    """What the parameters' addresses point into."""


class StepList:
    """Launches that run as one call."""

    def __init__(
        self, pool: NativePool, launches: Sequence[NativeLaunch], *, is_alone: bool
    ) -> None:
        """`is_alone`: nothing else computes on this process's threads meanwhile."""
        self.pool = pool
        self.launches = tuple(launches)
        self._is_alone = is_alone
        self._records = (_Record * len(launches))(
            *(
                _Record(each.kernel, ctypes.addressof(each.parameters.addresses))
                for each in launches
            )
        )
        pool.reserve(len(launches), max(each.scratch_bytes for each in launches))

    def __call__(self) -> None:
        """Run them in order; returns when the last has run."""
        self.pool.run(self._records, len(self.launches), is_alone=self._is_alone)


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
        _require(arch, library.features)
        self._library = _loaded(content)
        self._library.pool_create.restype = ctypes.c_void_p
        for name in ("pool_create", "pool_destroy", "pool_reserve", "run_step"):
            getattr(self._library, name)  # an AttributeError now
        self._threads = 1
        self._most = 0
        self._reserved = (1, 1)
        self._pool = ctypes.c_void_p()
        self._end = weakref.finalize(self, lambda: None)
        self._create(1)

    def kernel(self, symbol: str) -> int:
        """The address of a kernel. Raises ArtifactError where there is no such symbol."""
        try:
            found = ctypes.cast(getattr(self._library, symbol), ctypes.c_void_p).value
        except AttributeError as error:
            raise ArtifactError(
                f"the native library has no kernel {symbol!r}, which a program launches; recompile"
                " the artifact"
            ) from error
        assert found is not None
        return found

    def use_threads(self, count: int) -> None:
        """Run what follows on so many threads, the caller's among them."""
        self._threads = min(count, MOST_THREADS)
        if self._threads > self._most:
            self._create(self._threads)

    def reserve(self, launches: int, scratch_bytes: int) -> None:
        """Room for lists so long, whose threads take so many bytes each."""
        self._reserved = (
            max(self._reserved[0], launches),
            max(self._reserved[1], scratch_bytes),
        )
        counts = map(ctypes.c_int64, self._reserved)
        if self._library.pool_reserve(self._pool, *counts):
            raise MemoryError(f"{scratch_bytes} bytes for each of {self._most} threads")

    def run(self, records: ctypes.Array[_Record], count: int, *, is_alone: bool) -> None:
        """Run a list's launches, on one thread where others compute beside it."""
        threads = self._threads if is_alone else 1
        self._library.run_step(self._pool, records, ctypes.c_int64(count), threads)

    def _create(self, most: int) -> None:
        self._end()
        self._pool = ctypes.c_void_p(self._library.pool_create(most))
        if not self._pool:
            raise DeviceUnavailable(f"the system gives no {most} threads; ask for fewer")
        self._most = most
        self._end = weakref.finalize(self, self._library.pool_destroy, self._pool)
        self.reserve(*self._reserved)


def _loaded(content: bytes) -> ctypes.CDLL:
    """The library from memory: what was verified is what runs, and no disk need be writable."""
    file = os.memfd_create("lostwax-native")
    try:
        with os.fdopen(os.dup(file), "wb") as out:
            out.write(content)
        return ctypes.CDLL(f"/proc/self/fd/{file}")
    finally:
        os.close(file)


def _require(arch: str, features: Sequence[str]) -> None:
    here = _processor_features()
    missing = [name for name in features if here is not None and name not in here]
    if missing:
        raise DeviceUnavailable(
            f"the artifact's kernels are for {arch}, and this processor lacks"
            f" {', '.join(missing)}; compile the model for another target"
        )


def _processor_features() -> set[str] | None:
    """By Linux's names; None where nothing tells them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return None
    lines = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return set(lines[0].partition(":")[2].split()) if lines else None
