"""What launching a cubin takes of the CUDA driver API, by ctypes. Knows no torch."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from lostwax.ir.contract.program import Null, Scalar

_INVALID_CONTEXT = 201
_MAX_DYNAMIC_SHARED_BYTES = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_NON_PORTABLE_CLUSTER = 14  # CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
_CLUSTER_DIMENSION = 4  # CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
_PORTABLE_CLUSTER = 8
_SCALARS = {"i32": ctypes.c_int32, "i64": ctypes.c_int64, "f32": ctypes.c_float}


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
    """A launch with its parameters packed; holds all memory that the driver reads at the call."""

    def __init__(
        self,
        function: ctypes.c_void_p,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        cluster: tuple[int, int, int],
        shared_bytes: int,
        params: Sequence[int | Scalar | Null],
    ) -> None:
        self.function = function
        values = [_packed(p) for p in params]
        self._values = values
        addresses = [ctypes.cast(ctypes.byref(v), ctypes.c_void_p) for v in values]
        self.parameters = (ctypes.c_void_p * len(values))(*addresses)
        self._attribute = _Attribute(_CLUSTER_DIMENSION)
        for axis, extent in enumerate(cluster):
            self._attribute.value[axis] = extent
        self.config = _Config(
            grid=(ctypes.c_uint32 * 3)(*grid),
            block=(ctypes.c_uint32 * 3)(*block),
            shared_bytes=shared_bytes,
            attributes=ctypes.pointer(self._attribute),
            num_attributes=int(cluster != (1, 1, 1)),
        )


def _packed(
    param: int | Scalar | Null,
) -> ctypes.c_void_p | ctypes.c_int32 | ctypes.c_int64 | ctypes.c_float:
    if isinstance(param, Scalar):
        kind = _SCALARS[param.kind]
        return kind(param.value)  # pyright: ignore[reportArgumentType]  # int for i32/i64
    return ctypes.c_void_p(0 if isinstance(param, Null) else param)


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

    def load(self, cubin: bytes) -> ctypes.c_void_p:
        """A module from a cubin's bytes."""
        module = ctypes.c_void_p()
        self._check(self._lib.cuModuleLoadData(ctypes.byref(module), cubin), "cuModuleLoadData")
        return module

    def function(self, module: ctypes.c_void_p, symbol: str) -> ctypes.c_void_p:
        """A kernel of a module."""
        found = ctypes.c_void_p()
        code = self._lib.cuModuleGetFunction(ctypes.byref(found), module, symbol.encode())
        self._check(code, f"cuModuleGetFunction({symbol})")
        return found

    def allow(self, function: ctypes.c_void_p, shared_bytes: int, cluster_ctas: int) -> None:
        """Permit the dynamic shared memory and the cluster size of a launch."""
        wanted: list[tuple[int, int]] = []
        if shared_bytes:
            wanted.append((_MAX_DYNAMIC_SHARED_BYTES, shared_bytes))
        if cluster_ctas > _PORTABLE_CLUSTER:
            wanted.append((_NON_PORTABLE_CLUSTER, 1))
        for attribute, value in wanted:
            code = self._lib.cuFuncSetAttribute(function, attribute, value)
            self._check(code, f"cuFuncSetAttribute({attribute}, {value})")

    def launch(self, packed: PackedLaunch, stream: int) -> None:
        """Launch on a stream; makes the context current in a thread where it is not."""
        packed.config.stream = stream
        arguments = (ctypes.byref(packed.config), packed.function, packed.parameters, None)
        code = self._lib.cuLaunchKernelEx(*arguments)
        if code == _INVALID_CONTEXT:
            self._check(self._lib.cuCtxSetCurrent(self._context), "cuCtxSetCurrent")
            code = self._lib.cuLaunchKernelEx(*arguments)
        if code:
            self._check(code, "cuLaunchKernelEx")
