"""Whether views lie within buffers of known sizes. Knows no program and no device.

A file is trusted with nothing: what is checked here is what torch and kernels then rely on. A
program has thousands of views and is checked at every start, so that a message is only put
together where there is something to say.
"""

from __future__ import annotations

from typing import NoReturn

from lostwax.ir.contract.dtypes import DTYPE_BITS, DTYPE_BYTES
from lostwax.ir.contract.program import View


class Inconsistent(ValueError):
    """Parts of an artifact that do not fit each other; the message names the part at fault."""


def require(holds: bool, message: str) -> None:
    """Raise Inconsistent unless it holds."""
    if not holds:
        raise Inconsistent(message)


def dtype_bytes(dtype: str, what: str) -> int:
    """Bytes of an element; Inconsistent for a dtype that does not exist."""
    if dtype in DTYPE_BITS and dtype not in DTYPE_BYTES:
        raise Inconsistent(
            f"{what} is {dtype}, of which several lie in a byte, and nothing lowers that;"
            " dequantise the checkpoint"
        )
    require(dtype in DTYPE_BYTES, f"{what} has an unknown dtype {dtype!r}")
    return DTYPE_BYTES[dtype]


def refuse_view(view: View, why: str) -> NoReturn:
    """Raise Inconsistent over a view."""
    raise Inconsistent(f"a view of {view.space} memory {view.name!r} {why}")


def _width(view: View) -> int:
    """Bytes of an element of a view whose axes make sense."""
    width = DTYPE_BYTES.get(view.dtype)
    if width is None:
        refuse_view(view, f"has an unknown dtype {view.dtype!r}")
    if len(view.shape) != len(view.strides):
        refuse_view(view, f"has {len(view.shape)} extents and {len(view.strides)} strides")
    if view.offset % width:
        refuse_view(view, f"begins at byte {view.offset}, inside a {view.dtype}")
    return width


def end_of(view: View) -> int:
    """The byte behind the last element, from the buffer's start. Raises Inconsistent."""
    width, last, is_empty = _width(view), 0, False
    for extent, stride in zip(view.shape, view.strides, strict=True):
        if extent < 1:
            if extent < 0:
                refuse_view(view, f"has an extent of {extent}")
            is_empty = True
        last += (extent - 1) * stride
    return view.offset + (0 if is_empty else (last + 1) * width)


def require_within(view: View, num_bytes: int, start: int = 0) -> None:
    """Raise Inconsistent unless the view, `start` bytes further on, lies in so many bytes."""
    end = start + end_of(view)
    if end > num_bytes:
        refuse_view(view, f"ends at byte {end} of a buffer of {num_bytes}")
    first, width = start + view.offset, DTYPE_BYTES[view.dtype]
    if first % width or (num_bytes - first) % width:
        refuse_view(view, f"at byte {first} of {num_bytes} cuts its {view.dtype}")


def require_pages(view: View, page_bytes: int) -> None:
    """Raise Inconsistent unless the view is of whole pages of so many bytes, as many as lie there.

    Its first extent is open (-1), and no page reaches into the one behind it.
    """
    width = _width(view)
    if view.shape[:1] != (-1,):
        refuse_view(view, "is no view of all pages")
    if any(extent < 1 for extent in view.shape[1:]):
        refuse_view(view, "has an empty or negative extent")
    if view.strides[0] * width != page_bytes:
        refuse_view(view, f"steps {view.strides[0] * width} bytes a page of {page_bytes}")
    inner = sum((n - 1) * s for n, s in zip(view.shape[1:], view.strides[1:], strict=True)) + 1
    if view.offset + inner * width > page_bytes:
        refuse_view(view, "reaches beyond its page")
