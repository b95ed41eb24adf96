"""What launching a code object takes of the HIP API, by ctypes. **Never run on a device.**"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from lostwax.backends.runtime.kernel_parameters import PackedParameters
from lostwax.ir.contract.parameter import TensorMap
from lostwax.ir.contract.program import KernelLaunch

NAMES = ("libamdhip64.so", "libamdhip64.so.7", "libamdhip64.so.6")
"""torch's ROCm build has the first beside it; a system's packages may have only one with the number
of its ROCm."""


class HipError(RuntimeError):
    """A call of the HIP API failed."""


@dataclass(frozen=True, slots=True)
class PackedLaunch:
    """A launch with its packed parameters."""

    kernel: ctypes.c_void_p
    launch: KernelLaunch
    parameters: PackedParameters


def _opened() -> ctypes.CDLL:
    """HipError where the linker finds it under none of its names."""
    said = ""
    for name in NAMES:
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            said = said or str(error)
    raise HipError(
        f"HIP's library is not found as {', '.join(NAMES)} ({said}): torch's ROCm build brings it,"
        " and so does ROCm's package hip-runtime-amd, whose lib folder belongs into LD_LIBRARY_PATH"
    )


class LibHip:
    """The HIP library that torch has already loaded and given a device."""

    def __init__(self) -> None:
        self._lib = _opened()
        self._lib.hipGetErrorName.restype = ctypes.c_char_p

    def _check(self, code: int, call: str) -> None:
        if code:
            name = self._lib.hipGetErrorName(code)
            text = name.decode() if name else "unknown error"
            raise HipError(f"{call} failed: {text} ({code})")

    def load(self, binary: bytes, symbol: str) -> ctypes.c_void_p:
        """A kernel of a code object."""
        module, found = ctypes.c_void_p(), ctypes.c_void_p()
        self._check(self._lib.hipModuleLoadData(ctypes.byref(module), binary), "hipModuleLoadData")
        code = self._lib.hipModuleGetFunction(ctypes.byref(found), module, symbol.encode())
        self._check(code, f"hipModuleGetFunction({symbol})")
        return found

    def pack(
        self, kernel: ctypes.c_void_p, launch: KernelLaunch, parameters: PackedParameters
    ) -> PackedLaunch:
        """The launch; HIP asks no permission for LDS. Raises HipError for attributes."""
        wanted = {
            "one of clusters of workgroups": launch.cluster != (1, 1, 1),
            "programmatic": launch.programmatic,
            "cooperative": launch.cooperative,
        }
        for what in (name for name, is_wanted in wanted.items() if is_wanted):
            raise HipError(f"{launch.op}: its launch is {what}, which this target lacks")
        return PackedLaunch(kernel, launch, parameters)

    def encode_tensor_map(
        self, tensor_map: TensorMap, address: int, extents: tuple[int, ...]
    ) -> bytes:
        """AMD's GPUs have no tensor maps."""
        raise HipError("a launch takes a tensor map, which this target lacks; recompile it")

    def launch(self, packed: PackedLaunch, stream: int) -> None:
        """Launch on a stream."""
        launch = packed.launch
        code = self._lib.hipModuleLaunchKernel(
            packed.kernel,
            *(ctypes.c_uint(n) for n in (*launch.grid, *launch.block, launch.shared_bytes)),
            ctypes.c_void_p(stream),
            packed.parameters.addresses,
            None,
        )
        if code:
            self._check(code, "hipModuleLaunchKernel")
