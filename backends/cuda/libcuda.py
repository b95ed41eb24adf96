"""What launching a cubin takes of the CUDA driver API, by ctypes. Knows no model."""

from __future__ import annotations

import ctypes

from lostwax.backends.runtime.gpu_driver import PackedParameters
from lostwax.ir.contract.program import KernelLaunch

_INVALID_CONTEXT = 201
_MAX_DYNAMIC_SHARED_BYTES = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_NON_PORTABLE_CLUSTER = 14  # CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
_CLUSTER_DIMENSION = 4  # CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
_PORTABLE_CLUSTER = 8


class CudaError(RuntimeError):
    """A call of the driver API failed."""


class _Attribute(ctypes.Structure):
    """CUlaunchAttribute: an id, then at an 8-byte border a union of 64 bytes."""

    _fields_ = [
        ("id", ctypes.c_int),
        ("padding", ctypes.c_int),
        ("value", ctypes.c_uint32 * 16),
    ]


class _Config(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = [
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("shared_bytes", ctypes.c_uint32),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("num_attributes", ctypes.c_uint32),
    ]


class PackedLaunch:
    """A launch as the driver reads it; holds all memory that it points to."""

    def __init__(
        self, function: ctypes.c_void_p, launch: KernelLaunch, parameters: PackedParameters
    ) -> None:
        self.function = function
        self.parameters = parameters
        self._attribute = _Attribute(_CLUSTER_DIMENSION)
        for axis, extent in enumerate(launch.cluster):
            self._attribute.value[axis] = extent
        self.config = _Config(
            grid=(ctypes.c_uint32 * 3)(*launch.grid),
            block=(ctypes.c_uint32 * 3)(*launch.block),
            shared_bytes=launch.shared_bytes,
            attributes=ctypes.pointer(self._attribute),
            num_attributes=int(launch.cluster != (1, 1, 1)),
        )


class LibCuda:
    """The driver library, used in the context that was current when this was made."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL("libcuda.so.1")
        self._context = ctypes.c_void_p()
        self._check(self._lib.cuCtxGetCurrent(ctypes.byref(self._context)), "cuCtxGetCurrent")

    def _check(self, code: int, call: str) -> None:
        if code:
            name = ctypes.c_char_p()
            self._lib.cuGetErrorName(code, ctypes.byref(name))
            text = name.value.decode() if name.value else "unknown error"
            raise CudaError(f"{call} failed: {text} ({code})")

    def load(self, binary: bytes, symbol: str) -> ctypes.c_void_p:
        """A kernel of a cubin."""
        module, found = ctypes.c_void_p(), ctypes.c_void_p()
        self._check(self._lib.cuModuleLoadData(ctypes.byref(module), binary), "cuModuleLoadData")
        code = self._lib.cuModuleGetFunction(ctypes.byref(found), module, symbol.encode())
        self._check(code, f"cuModuleGetFunction({symbol})")
        return found

    def pack(
        self, kernel: ctypes.c_void_p, launch: KernelLaunch, parameters: PackedParameters
    ) -> PackedLaunch:
        """The launch, with its dynamic shared memory and cluster size permitted.

        Raises CudaError where the kernel takes other parameters: the driver reads as many as it
        takes, whatever it is given.
        """
        self._require_parameters(kernel, launch, parameters)
        x, y, z = launch.cluster
        wanted: list[tuple[int, int]] = []
        if launch.shared_bytes:
            wanted.append((_MAX_DYNAMIC_SHARED_BYTES, launch.shared_bytes))
        if x * y * z > _PORTABLE_CLUSTER:
            wanted.append((_NON_PORTABLE_CLUSTER, 1))
        for attribute, value in wanted:
            code = self._lib.cuFuncSetAttribute(kernel, attribute, value)
            self._check(code, f"cuFuncSetAttribute({attribute}, {value})")
        return PackedLaunch(kernel, launch, parameters)

    def _require_parameters(
        self, kernel: ctypes.c_void_p, launch: KernelLaunch, parameters: PackedParameters
    ) -> None:
        if not hasattr(self._lib, "cuFuncGetParamInfo"):
            return  # drivers before CUDA 12.4 cannot tell
        taken: list[int] = []
        offset, size = ctypes.c_size_t(), ctypes.c_size_t()
        places = ctypes.byref(offset), ctypes.byref(size)
        while len(taken) <= len(parameters.sizes):
            index = ctypes.c_size_t(len(taken))
            if self._lib.cuFuncGetParamInfo(kernel, index, *places):
                break  # there is none of this number
            taken.append(size.value)
        if tuple(taken) != parameters.sizes:
            raise CudaError(
                f"{launch.op}: kernel {launch.symbol} takes parameters of {taken} bytes, the"
                f" program gives {list(parameters.sizes)}; recompile the artifact"
            )

    def launch(self, packed: PackedLaunch, stream: int) -> None:
        """Launch on a stream; makes the context current in a thread where it is not."""
        packed.config.stream = stream
        arguments = (
            ctypes.byref(packed.config),
            packed.function,
            packed.parameters.addresses,
            None,
        )
        code = self._lib.cuLaunchKernelEx(*arguments)
        if code == _INVALID_CONTEXT:
            self._check(self._lib.cuCtxSetCurrent(self._context), "cuCtxSetCurrent")
            code = self._lib.cuLaunchKernelEx(*arguments)
        if code:
            self._check(code, "cuLaunchKernelEx")
