"""Runs programs on the CPU that they were compiled for: lists of native launches, host calls."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch

from lostwax.backends.cpu import BACKEND
from lostwax.backends.cpu.contract.check_native import Unfit, appended, check_native
from lostwax.backends.cpu.heap import keep_freed_memory
from lostwax.backends.cpu.pool import NativeLaunch, NativePool, StepList
from lostwax.backends.cpu.presence import presence
from lostwax.backends.runtime.artifact_reader import ArtifactError
from lostwax.backends.runtime.driver import ReadKernel, Resolve, Thunk
from lostwax.backends.runtime.host_driver import HostDriver
from lostwax.backends.runtime.kernel_parameters import over_memory
from lostwax.backends.runtime.torch_build import torch_build
from lostwax.ir.contract.kernel import CompiledKernel
from lostwax.ir.contract.parameter import Scalar, TensorMap
from lostwax.ir.contract.program import HostCall, KernelLaunch, Launch
from lostwax.ir.contract.target import Target


class CpuDriver(HostDriver):
    """Satisfies `lostwax.backends.runtime.driver.Driver`."""

    packages = BACKEND.kernels

    def __init__(
        self, target: Target, kernels: ReadKernel, compiled: dict[str, CompiledKernel]
    ) -> None:
        super().__init__(target, kernels, compiled)
        presence(target, torch_build())
        keep_freed_memory()
        self._target = target
        self._kernels = kernels
        self._compiled = compiled
        self._pools: dict[str, NativePool] = {}
        self._checked_launches: dict[int, KernelLaunch] = {}
        """Launches that keep their kernels' rules, by id."""
        self._threads = torch.get_num_threads()

    def bind(self, launch: Launch, resolve: Resolve) -> Thunk:
        """A host call, or a list of one native launch."""
        if isinstance(launch, HostCall):
            return super().bind(launch, resolve)
        pool = self._pool(launch.binary)
        added = self._checked(launch, resolve)
        parameters, tensors = over_memory((*launch.params, *added), resolve, _no_tensor_map)
        kernel = pool.kernel(launch.symbol)
        native = NativeLaunch(kernel, parameters, launch.shared_bytes, tensors)
        return StepList(pool, (native,))

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
        """Torch's operators and lists of native launches on so many threads."""
        super().use_threads(count)
        self._threads = count
        for pool in self._pools.values():
            pool.use_threads(count)

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
