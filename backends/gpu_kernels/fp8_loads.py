"""Reads fp8 numbers out of bytes, for Triton kernels. Knows no target."""

from __future__ import annotations

import triton
import triton.language as tl

from lostwax.backends.gpu_kernels.rounding import fp8_wide


@triton.jit
def load_fp8(data, at, inside, FNUZ: tl.constexpr, WIDE: tl.constexpr):
    """The e4m3 numbers at `at` bytes behind `data`, zero where not inside; with WIDE in f32.

    Of FNUZ those by their bits: Triton's interpreter does not know the encoding.
    """
    if FNUZ and WIDE:
        return fp8_wide(tl.load(data + at, mask=inside, other=0), 1)
    elif FNUZ:
        codes = data.to(tl.pointer_type(tl.float8e4b8), bitcast=True)
        return tl.load(codes + at, mask=inside, other=0.0)
    else:
        codes = data.to(tl.pointer_type(tl.float8e4nv), bitcast=True)
        values = tl.load(codes + at, mask=inside, other=0.0)
        return values.to(tl.float32) if WIDE else values
