"""What launching a cubin takes of the CUDA driver API, by ctypes. Knows no model."""

from __future__ import annotations

import ctypes

from lostwax.backends.runtime.kernel_parameters import PackedParameters, aligned_bytes
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.parameter import TENSOR_MAP_BYTES, TensorMap
from lostwax.ir.contract.program import KernelLaunch

_INVALID_CONTEXT = 201
_MAX_DYNAMIC_SHARED_BYTES = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_NON_PORTABLE_CLUSTER = 14  # CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
_COOPERATIVE = 2  # CU_LAUNCH_ATTRIBUTE_COOPERATIVE
_CLUSTER_DIMENSION = 4  # CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
_PROGRAMMATIC = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
_PORTABLE_CLUSTER = 8

# CUtensorMapDataType, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion and
# CUtensorMapFloatOOBfill. It has no type of fp8: its bytes.
_MAP_DTYPES = {
    "u8": 0, "f8E4M3FN": 0, "f8E4M3FNUZ": 0, "f8E8M0FNU": 0, "i32": 3, "i64": 5, "f16": 6,
    "f32": 7, "f64": 8, "bf16": 9,
}  # fmt: skip
_INTERLEAVES = {"none": 0, "16B": 1, "32B": 2}
_SWIZZLES = {"none": 0, "32B": 1, "64B": 2, "128B": 3}
_PROMOTIONS = {"none": 0, "64B": 1, "128B": 2, "256B": 3}
_FILLS = {"zero": 0, "nan": 1}
_MAP_BORDERS = {"none": 16, "16B": 16, "32B": 32}


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
        wanted = _attributes(launch)
        self._attributes = (_Attribute * len(wanted))(*wanted)
        self.config = _Config(
            grid=(ctypes.c_uint32 * 3)(*launch.grid),
            block=(ctypes.c_uint32 * 3)(*launch.block),
            shared_bytes=launch.shared_bytes,
            attributes=ctypes.cast(self._attributes, ctypes.POINTER(_Attribute)),
            num_attributes=len(wanted),
        )


def _attributes(launch: KernelLaunch) -> list[_Attribute]:
    """Those that the launch asks for."""
    found: list[_Attribute] = []
    if launch.cluster != (1, 1, 1):
        found.append(_attribute(_CLUSTER_DIMENSION, *launch.cluster))
    if launch.programmatic:
        found.append(_attribute(_PROGRAMMATIC, 1))
    if launch.cooperative:
        found.append(_attribute(_COOPERATIVE, 1))
    return found


def _attribute(kind: int, *values: int) -> _Attribute:
    made = _Attribute(kind)
    for place, value in enumerate(values):
        made.value[place] = value
    return made


class LibCuda:
    """The driver library, used in the context that was current when this was made.

    Any thread may call: a thread has no context until a call of its own asks for one.
    """

    def __init__(self) -> None:
        self._lib = ctypes.CDLL("libcuda.so.1")
        self._permitted: dict[int | None, int] = {}
        """By kernel, the dynamic shared memory that its launches may have."""
        self._context = ctypes.c_void_p()
        self._check(self._lib.cuCtxGetCurrent(ctypes.byref(self._context)), "cuCtxGetCurrent")

    def _call(self, name: str, *arguments: object) -> int:
        """The code that a function answers, in this object's context."""
        function = getattr(self._lib, name)
        code = function(*arguments)
        if code == _INVALID_CONTEXT:
            self._check(self._lib.cuCtxSetCurrent(self._context), "cuCtxSetCurrent")
            code = function(*arguments)
        return code

    def _check(self, code: int, call: str) -> None:
        if code:
            name = ctypes.c_char_p()
            self._lib.cuGetErrorName(code, ctypes.byref(name))
            text = name.value.decode() if name.value else "unknown error"
            raise CudaError(f"{call} failed: {text} ({code})")

    def load(self, binary: bytes, symbol: str) -> ctypes.c_void_p:
        """A kernel of a cubin."""
        module, found = ctypes.c_void_p(), ctypes.c_void_p()
        self._check(
            self._call("cuModuleLoadData", ctypes.byref(module), binary), "cuModuleLoadData"
        )
        code = self._call("cuModuleGetFunction", ctypes.byref(found), module, symbol.encode())
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
        if launch.shared_bytes > self._permitted.get(kernel.value, 0):
            # a smaller launch of the same kernel must not take back what a larger one has
            self._permitted[kernel.value] = launch.shared_bytes
            wanted.append((_MAX_DYNAMIC_SHARED_BYTES, launch.shared_bytes))
        if x * y * z > _PORTABLE_CLUSTER:
            wanted.append((_NON_PORTABLE_CLUSTER, 1))
        for attribute, value in wanted:
            code = self._call("cuFuncSetAttribute", kernel, attribute, value)
            self._check(code, f"cuFuncSetAttribute({attribute}, {value})")
        return PackedLaunch(kernel, launch, parameters)

    def encode_tensor_map(
        self, tensor_map: TensorMap, address: int, extents: tuple[int, ...]
    ) -> bytes:
        """The CUtensorMap over memory at an address, for a view whose axes have these extents.

        Raises CudaError for an address that is not at its border, and what the driver refuses.
        """
        border = _MAP_BORDERS[tensor_map.interleave]
        if address % border:
            raise CudaError(
                f"a tensor map over {tensor_map.view.space} memory {tensor_map.view.name!r} begins"
                f" at {address:#x}, which is no multiple of {border}; recompile the artifact"
            )
        view, rank = tensor_map.view, len(extents)
        width = DTYPE_BYTES[view.dtype]
        strides = [stride * width for stride in reversed(view.strides[:-1])]
        made = aligned_bytes(TENSOR_MAP_BYTES)
        code = self._call(
            "cuTensorMapEncodeTiled",
            ctypes.byref(made),
            ctypes.c_int(_MAP_DTYPES[view.dtype]),
            ctypes.c_uint32(rank),
            ctypes.c_void_p(address),
            (ctypes.c_uint64 * rank)(*reversed(extents)),
            (ctypes.c_uint64 * max(rank - 1, 1))(*strides),
            (ctypes.c_uint32 * rank)(*reversed(tensor_map.box)),
            (ctypes.c_uint32 * rank)(*[1] * rank),
            ctypes.c_int(_INTERLEAVES[tensor_map.interleave]),
            ctypes.c_int(_SWIZZLES[tensor_map.swizzle]),
            ctypes.c_int(_PROMOTIONS[tensor_map.l2_promotion]),
            ctypes.c_int(_FILLS[tensor_map.fill]),
        )
        self._check(code, "cuTensorMapEncodeTiled")
        return bytes(made)

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
            if self._call("cuFuncGetParamInfo", kernel, index, *places):
                break  # there is none of this number
            taken.append(size.value)
        if tuple(taken) != parameters.sizes:
            raise CudaError(
                f"{launch.op}: kernel {launch.symbol} takes parameters of {taken} bytes, the"
                f" program gives {list(parameters.sizes)}; recompile the artifact"
            )

    def launch(self, packed: PackedLaunch, stream: int) -> None:
        """Launch on a stream."""
        packed.config.stream = stream
        arguments = (
            ctypes.byref(packed.config),
            packed.function,
            packed.parameters.addresses,
            None,
        )
        code = self._call("cuLaunchKernelEx", *arguments)
        if code:
            self._check(code, "cuLaunchKernelEx")
