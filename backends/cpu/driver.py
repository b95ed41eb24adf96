"""Runs programs on the CPU that they were compiled for: lists of native launches, host calls.

Memory is numpy's. torch is imported where a program names a host call, whose functions are torch's:
it then works on the same memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from itertools import groupby
from typing import TYPE_CHECKING

from lostwax.backends.cpu import BACKEND
from lostwax.backends.cpu.contract.check_native import Unfit, appended, check_native
from lostwax.backends.cpu.heap import keep_freed_memory
from lostwax.backends.cpu.pool import NativeLaunch, NativePool, StepList
from lostwax.backends.cpu.presence import require_processor
from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.backends.runtime.driver import Mark, Passed, ReadKernel, Resolve, Thunk, walked
from lostwax.backends.runtime.host_call import bind_host_call
from lostwax.backends.runtime.host_memory import HostMemory, HostPlace, zeroed
from lostwax.backends.runtime.kernel_parameters import over_memory
from lostwax.backends.runtime.memory import Array
from lostwax.backends.runtime.processor import processor
from lostwax.backends.runtime.torch_build import torch_build
from lostwax.backends.runtime.usable_cores import usable_threads
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.parameter import Scalar, TensorMap
from lostwax.ir.contract.program import HostCall, KernelLaunch, Launch
from lostwax.ir.contract.target import Target
from lostwax.ir.contract.view import View

if TYPE_CHECKING:
    import torch


class CpuDriver:
    """Satisfies `lostwax.backends.runtime.driver.Driver`."""

    packages = BACKEND.kernels
    """Packages that host calls may name."""

    def __init__(
        self, target: Target, kernels: ReadKernel, compiled: dict[str, CompiledKernel]
    ) -> None:
        require_processor(target)
        keep_freed_memory()
        self._target = target
        self._kernels = kernels
        self._compiled = compiled
        self._pools: dict[str, NativePool] = {}
        self._checked_launches: dict[int, KernelLaunch] = {}
        """Launches that keep their kernels' rules, by id."""
        self._threads = usable_threads()
        self._calls_torch = False

    @property
    def memory(self) -> HostMemory:
        """numpy's."""
        return HostMemory()

    @property
    def device_name(self) -> str:
        """The processor's model."""
        return processor()

    @property
    def fingerprint(self) -> str:
        """The processor's model, and the build of torch, which host calls call."""
        return f"{self.device_name}, torch {torch_build().version}"

    def allocate(self, num_bytes: int) -> Array:
        """A zeroed u8 [num_bytes] buffer, aligned to 256 bytes."""
        return zeroed(num_bytes)

    def staging(self, num_bytes: int) -> Array:
        """Any buffer: host memory is the driver's own."""
        return zeroed(num_bytes)

    def bind(self, launch: Launch, resolve: Resolve) -> Thunk:
        """A host call, or a list of one native launch."""
        if isinstance(launch, HostCall):
            return self._bind_torch(launch, resolve)
        pool = self._pool(launch.binary)
        added = self._checked(launch, resolve)
        parameters, tensors = over_memory((*launch.params, *added), resolve, _no_tensor_map)
        kernel = pool.kernel(launch.symbol)
        native = NativeLaunch(kernel, parameters, launch.shared_bytes, tensors)
        return StepList(pool, (native,))

    def _bind_torch(self, call: HostCall, resolve: Resolve) -> Thunk:
        """The call over tensors of the same memory."""

        def tensor(view: View) -> torch.Tensor:
            place = resolve(view)
            assert isinstance(place, HostPlace)
            return place.tensor()

        bound = bind_host_call(call, tensor, self.packages)
        if not self._calls_torch:
            self._calls_torch = True
            self.use_threads(self._threads)
        return bound

    def capture(self, launches: Sequence[Thunk]) -> Thunk:
        """The sequence itself: nothing is captured."""
        return walked(launches)

    def joined(self, launches: Sequence[Thunk]) -> Sequence[tuple[int, Thunk]]:
        """Native launches that follow one another as one list."""
        found: list[tuple[int, Thunk]] = []
        for _, group in groupby(launches, lambda each: type(each) is StepList):
            each = list(group)
            lists = [one for one in each if isinstance(one, StepList)]
            if lists:
                native = [launch for one in lists for launch in one.launches]
                found.append((len(each), StepList(lists[0].pool, native)))
            else:
                found += [(1, one) for one in each]
        return found

    def use_threads(self, count: int) -> None:
        """Lists of native launches on so many threads, and torch's operators where called."""
        self._threads = count
        for pool in self._pools.values():
            pool.use_threads(count)
        if self._calls_torch:
            import_module("torch").set_num_threads(count)

    def running(self) -> AbstractContextManager[object]:
        """torch's mode for what is never differentiated, where torch is called."""
        return import_module("torch").inference_mode() if self._calls_torch else nullcontext()

    def mark(self) -> Mark:
        """Passed: a launch returns when it has run."""
        return Passed()

    def synchronize(self) -> None:
        """Nothing is asynchronous."""

    def _checked(self, launch: KernelLaunch, resolve: Resolve) -> tuple[Scalar, ...]:
        """What stands behind the launch's parameters; all layers of a block share the launch."""
        try:
            if self._checked_launches.get(id(launch)) is not launch:
                check_native(launch)
                self._checked_launches[id(launch)] = launch
            return appended(launch, lambda view: resolve(view).shape[0])
        except Unfit as error:
            raise ArtifactError(f"{launch.op}: {error}; recompile the artifact") from error

    def _pool(self, binary: str) -> NativePool:
        if binary not in self._compiled:
            raise ArtifactError(
                f"the artifact lists no kernel {binary!r}, which a program launches; recompile it"
            )
        if binary not in self._pools:
            self._pools[binary] = NativePool(self._target.arch, self._kernels(binary))
            self._pools[binary].use_threads(self._threads)
        return self._pools[binary]


def _no_tensor_map(tensor_map: TensorMap, address: int, extents: tuple[int, ...]) -> bytes:
    raise ArtifactError(
        "a launch takes a tensor map, which no processor has; recompile the artifact"
    )
