"""What a kernel is given: numbers, pointers, bytes with addresses in them, tensor maps.

Addresses are fixed once memory is allocated, so that each parameter is made once, at bind.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from lostwax.ir.contract.bounds import Bytes
from lostwax.ir.contract.view import View

ADDRESS_BYTES = 8
TENSOR_MAP_BYTES = 128
TENSOR_MAP_ALIGNMENT = 64
MAX_PARAMETER_BYTES = 4096
"""Of all parameters of a kernel together: what every CUDA device takes."""


class Scalar(msgspec.Struct, frozen=True, tag="scalar"):
    """A by-value kernel parameter."""

    kind: Literal["i32", "i64", "f32"]
    value: int | float


class Pointer(msgspec.Struct, frozen=True, tag="pointer"):
    """A device-pointer kernel parameter: the first element of a view."""

    view: View


class Null(msgspec.Struct, frozen=True, tag="null"):
    """A null device pointer (Triton's trailing scratch parameters)."""


class Relocation(msgspec.Struct, frozen=True):
    """An address inside a blob: that of the view's first element, and `addend` bytes further.

    `offset` counts bytes in the blob, where eight zeros hold the place.
    """

    offset: Bytes
    view: View
    addend: Bytes = 0


class Blob(msgspec.Struct, frozen=True, kw_only=True, tag="blob"):
    """A by-value parameter of bytes, such as a struct with pointers in it.

    `alignment` is the parameter's in the kernel, in bytes (a CUtensorMap's is 64).
    """

    data: Annotated[bytes, msgspec.Meta(min_length=1, max_length=MAX_PARAMETER_BYTES)]
    relocations: tuple[Relocation, ...] = ()
    alignment: Literal[1, 2, 4, 8, 16, 32, 64, 128] = 8


Interleave = Literal["none", "16B", "32B"]
Swizzle = Literal["none", "32B", "64B", "128B"]
Promotion = Literal["none", "64B", "128B", "256B"]
Fill = Literal["zero", "nan"]
BoxExtent = Annotated[int, msgspec.Meta(ge=1, le=256)]


class TensorMap(msgspec.Struct, frozen=True, kw_only=True, tag="tensor_map"):
    """A tiled tensor map (CUtensorMap) over a view, by value: what the copy engine reads tiles by.

    Dtype, rank, extents, strides and address are the view's, whose last axis is dense; a view of
    open pages has as many as there are. `box` are a tile's elements, axes in the view's order (the
    driver's is the reverse). fp8 travels as bytes. `fill` is what lies outside the view.
    """

    view: View
    box: Annotated[tuple[BoxExtent, ...], msgspec.Meta(min_length=1, max_length=5)]
    swizzle: Swizzle = "none"
    interleave: Interleave = "none"
    l2_promotion: Promotion = "none"
    fill: Fill = "zero"


Parameter = Pointer | Scalar | Null | Blob | TensorMap

_SCALAR_BYTES = {"i32": 4, "i64": 8, "f32": 4}


def views_of_parameter(parameter: Parameter) -> tuple[View, ...]:
    """The memory whose addresses a parameter holds."""
    match parameter:
        case Pointer() | TensorMap():
            return (parameter.view,)
        case Blob():
            return tuple(each.view for each in parameter.relocations)
        case Scalar() | Null():
            return ()


def size_and_alignment(parameter: Parameter) -> tuple[int, int]:
    """Bytes that a parameter takes, and the border at which it begins."""
    match parameter:
        case Scalar():
            size = _SCALAR_BYTES[parameter.kind]
            return size, size
        case Pointer() | Null():
            return ADDRESS_BYTES, ADDRESS_BYTES
        case Blob():
            return len(parameter.data), parameter.alignment
        case TensorMap():
            return TENSOR_MAP_BYTES, TENSOR_MAP_ALIGNMENT


def parameter_bytes(parameters: tuple[Parameter, ...]) -> int:
    """Bytes of all parameters behind one another, each at its border."""
    end = 0
    for parameter in parameters:
        size, alignment = size_and_alignment(parameter)
        end = -(-end // alignment) * alignment + size
    return end
