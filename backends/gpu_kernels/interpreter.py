"""Runs a GPU artifact's launches on the CPU: Triton kernels interpreted, host calls by torch.

The same source run elsewhere: evidence for `interpreted`, never for `executed`. Slow; serves no
one. Triton decides at import whether it interprets, so the process must have begun with
TRITON_INTERPRET=1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import torch

from lostwax.backends.gpu_kernels.triton_compiler import parts_of
from lostwax.backends.runtime.driver import Resolve, Thunk
from lostwax.backends.runtime.host_call import bind_host_call
from lostwax.backends.runtime.host_driver import HostDriver
from lostwax.backends.runtime.named_code import named_code
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.parameter import Blob, Parameter, Pointer, Scalar, TensorMap
from lostwax.ir.contract.program import HostCall, KernelLaunch, Launch

EXACT: Mapping[str, int] = {"WIDE_DOT": 1, "ROUND_FIRST": 1}
"""Constants that interpreting replaces: Triton's interpreter takes bf16 dots and conversions to fp8
wrongly, f32 right."""

_KERNELS = "lostwax.backends.portable.kernels."
CONVERTING: Mapping[str, str] = {
    f"{_KERNELS}wide_products:linear": f"{_KERNELS}linear:widened_linear",
    f"{_KERNELS}wide_products:absorb_query": f"{_KERNELS}absorb:absorb_query",
}
"""Host functions on operators that torch has on GPUs only, and what gives the same on the CPU."""


class NotInterpretable(RuntimeError):
    """A launch that only its device can run: CUDA C++, or data that Triton cannot interpret."""


PACKAGE = "lostwax.backends.gpu_kernels"
"""What GPU targets share; Triton kernels of a target's own lie in its `kernels` packages."""


class InterpretingDriver(HostDriver):
    """Satisfies `runtime.driver.Driver` over the sources of an artifact's binaries.

    `sources` are to be those of the binaries that are launched, `packages` the backend's.
    """

    sources: Mapping[str, KernelSource] = {}
    twins: object = None
    """What stands for operators that only the device has, kept as long as the driver."""

    def bind(self, launch: Launch, resolve: Resolve) -> Thunk:
        """The launch over resolved memory; NotInterpretable for CUDA C++."""
        if not isinstance(launch, KernelLaunch):
            return bind_on_cpu(launch, resolve, self.packages)
        source = self.sources[launch.binary]
        return bind_interpreted(source, launch, resolve, (*self.packages, PACKAGE))


def bind_on_cpu(call: HostCall, resolve: Resolve, packages: tuple[str, ...]) -> Thunk:
    """A host call of a GPU's program, by what the CPU has for it."""
    function = CONVERTING.get(call.function, call.function)
    return bind_host_call(msgspec.structs.replace(call, function=function), resolve, packages)


def bind_interpreted(
    source: KernelSource,
    launch: KernelLaunch,
    resolve: Resolve,
    packages: tuple[str, ...] = (PACKAGE,),
) -> Thunk:
    """One launch of a kernel of `packages`, interpreted."""
    if source.language != "triton":
        raise NotInterpretable(f"{source.symbol} is {source.language}: only its device can run it")
    kernel = named_code(source.path, source.symbol, packages)
    if hasattr(kernel, "device_caches"):  # compiled kernels have them, interpreted ones do not
        raise RuntimeError(
            "this process compiles Triton kernels; start it with TRITON_INTERPRET=1 to interpret"
        )
    if any(isinstance(p, Blob) for p in launch.params):
        raise NotInterpretable(f"{source.symbol} takes structs: only its device can run it")
    arguments, copies = _arguments(source, launch.params, resolve)
    exact = {name: value for name, value in EXACT.items() if name in source.constants}
    constants = source.constants | exact

    def run() -> None:
        for wide, tensor in copies:
            wide.copy_(tensor)
        kernel[launch.grid](*arguments, **constants)
        for wide, tensor in copies:
            tensor.copy_(wide)

    return run


Copies = list[tuple[torch.Tensor, torch.Tensor]]
"""f32 stand-ins, and the tensors that they stand for."""


def _arguments(
    source: KernelSource, params: Sequence[Parameter], resolve: Resolve
) -> tuple[list[Any], Copies]:  # tensors, numbers, tuples of both, and Triton's descriptors
    """What the interpreter is given: of tiles a descriptor, or a tuple with their extents."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    found: list[Any] = []
    copies: Copies = []
    left = iter(params)
    for kind in source.signature.values():
        if kind == "constexpr":
            continue
        param = next(left)
        match param:
            case Pointer():
                tensor = _readable(resolve(param.view), copies)
                behind = [next(left) for _ in parts_of(kind)[1:]]
                extents = (p.value for p in behind if isinstance(p, Scalar))
                found.append((tensor, *extents) if behind else tensor)
            case Scalar():
                found.append(param.value)
            case TensorMap():
                tensor, box = _readable(resolve(param.view), copies), list(param.box)
                for _ in (*tensor.shape, *tensor.stride()):
                    next(left)
                shape, strides = list(tensor.shape), list(tensor.stride())
                found.append(TensorDescriptor(tensor, shape, strides, box))
            case _:
                pass
    return found, copies


def _readable(tensor: torch.Tensor, copies: Copies) -> torch.Tensor:
    """What the interpreter can load and store: it knows no e4m3fnuz, whose numbers f32 holds
    exactly."""
    if tensor.dtype != torch.float8_e4m3fnuz:
        return tensor
    wide = torch.empty_strided(tensor.shape, tensor.stride(), dtype=torch.float32)
    copies.append((wide, tensor))
    return wide
