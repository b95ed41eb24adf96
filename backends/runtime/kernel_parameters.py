"""A kernel's parameters as vendors' drivers read them, made once. Knows no driver library."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import TypeAlias

from lostwax.backends.runtime.driver import Resolve
from lostwax.backends.runtime.memory import Place
from lostwax.ir.contract.parameter import (
    ADDRESS_BYTES,
    TENSOR_MAP_ALIGNMENT,
    Blob,
    Null,
    Parameter,
    Pointer,
    Scalar,
    TensorMap,
)

_Number: TypeAlias = ctypes.c_void_p | ctypes.c_int32 | ctypes.c_int64 | ctypes.c_float
_Held: TypeAlias = "_Number | ctypes.Array[ctypes.c_ubyte]"

EncodeMap = Callable[[TensorMap, int, tuple[int, ...]], bytes]
"""A tensor map's bytes, from the address of its view and the view's extents on the device."""

_SCALARS = {"i32": ctypes.c_int32, "i64": ctypes.c_int64, "f32": ctypes.c_float}


class PackedParameters:
    """A kernel's parameters; keeps what the addresses point to. Pointers are given as numbers."""

    def __init__(self, params: Sequence[int | Scalar | Null | bytes]) -> None:
        self._values = [_packed(p) for p in params]
        addresses = [ctypes.cast(ctypes.byref(v), ctypes.c_void_p) for v in self._values]
        self.addresses = (ctypes.c_void_p * len(addresses))(*addresses)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of each."""
        return tuple(ctypes.sizeof(value) for value in self._values)


def _packed(
    param: int | Scalar | Null | bytes,
) -> (
    ctypes.c_void_p
    | ctypes.c_int32
    | ctypes.c_int64
    | ctypes.c_float
    | ctypes.Array[ctypes.c_ubyte]
):
    if isinstance(param, bytes):
        held = aligned_bytes(len(param))
        ctypes.memmove(held, param, len(param))
        return held
    if isinstance(param, Scalar):
        kind = _SCALARS[param.kind]
        return kind(param.value)  # pyright: ignore[reportArgumentType]  # int for i32/i64
    return ctypes.c_void_p(0 if isinstance(param, Null) else param)


def aligned_bytes(num_bytes: int) -> ctypes.Array[ctypes.c_ubyte]:
    """Host memory that begins where a tensor map may; keeps the allocation that it lies in."""
    whole = (ctypes.c_ubyte * (num_bytes + TENSOR_MAP_ALIGNMENT))()
    start = -ctypes.addressof(whole) % TENSOR_MAP_ALIGNMENT
    return (ctypes.c_ubyte * num_bytes).from_buffer(whole, start)


def over_memory(
    params: Sequence[Parameter], resolve: Resolve, encode: EncodeMap
) -> tuple[PackedParameters, list[Place]]:
    """The parameters with addresses of resolved memory, and the places that these point into."""
    places: list[Place] = []
    made: list[int | Scalar | Null | bytes] = []
    for param in params:
        match param:
            case Pointer():
                places.append(resolve(param.view))
                made.append(places[-1].data_ptr())
            case TensorMap():
                places.append(resolve(param.view))
                made.append(encode(param, places[-1].data_ptr(), tuple(places[-1].shape)))
            case Blob():
                held = [resolve(each.view) for each in param.relocations]
                places += held
                made.append(_patched(param, [place.data_ptr() for place in held]))
            case Scalar() | Null():
                made.append(param)
    return PackedParameters(made), places


def _patched(blob: Blob, addresses: Sequence[int]) -> bytes:
    """The blob's bytes with an address at each relocation."""
    data = bytearray(blob.data)
    for each, address in zip(blob.relocations, addresses, strict=True):
        there = (address + each.addend).to_bytes(ADDRESS_BYTES, "little")
        data[each.offset : each.offset + ADDRESS_BYTES] = there
    return bytes(data)
