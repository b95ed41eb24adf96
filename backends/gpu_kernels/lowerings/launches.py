"""Builds a kernel's source and its launch from named arguments. Knows no op and no driver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

from lostwax.backends.gpu_kernels.triton_compiler import TILE_SWIZZLE
from lostwax.backends.lowering import Match
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.parameter import Null, Parameter, Pointer, Scalar, TensorMap
from lostwax.ir.contract.program import KernelLaunch, View
from lostwax.ir.contract.target import Target
from lostwax.ir.contract.view import Space


@dataclass(frozen=True, slots=True)
class Tiles:
    """A matrix that a kernel reads in tiles of `box` elements: through a tensor map, or, where the
    target has none, by pointer, rows, columns and the stride of rows."""

    view: View
    box: tuple[int, int]


Argument = View | Scalar | Tiles

_TRITON_TYPES = {
    "f32": "fp32", "bf16": "bf16", "f16": "fp16", "f64": "fp64", "i32": "i32", "i64": "i64",
    "u8": "u8", "f8E4M3FN": "fp8e4nv", "f8E4M3FNUZ": "fp8e4b8",
}  # fmt: skip
_ALIGNMENT = 16  # bytes: the widest access of a thread; buffers begin at 256-byte borders


def next_power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def is_aligned(view: View) -> bool:
    """Whether the first element lies at a 16-byte border."""
    return view.offset % _ALIGNMENT == 0


def i32(value: int) -> Scalar:
    """A 32-bit integer parameter."""
    if not -(2**31) <= value < 2**31:
        raise ValueError(f"{value} does not fit a 32-bit kernel parameter")
    return Scalar("i32", value)


def f32(value: float) -> Scalar:
    """A single-precision parameter."""
    return Scalar("f32", value)


def real_rows(match: Match) -> View:
    """Where a kernel reads how many of its rows are real: [1] i32. For `of_rows` values only."""
    return match.step_input("num_rows")


def encoding(target: Target) -> dict[str, int]:
    """The constant by which kernels that round to fp8 know the target's encoding."""
    return {"FNUZ": int(target.fp8_encoding == "f8E4M3FNUZ")}


def maps(target: Target) -> dict[str, int]:
    """The constant by which kernels of tiles know whether tensor maps come."""
    return {"MAPS": int(target.tensor_maps)}


def _triton_type(argument: Argument, target: Target, *, is_stride: bool, is_part: bool) -> str:
    """The type with the hint `:16`, which lets Triton read 16 bytes at once.

    Of the numbers only strides of what is read along a row get it: a hint on a size would compile
    one kernel for 8 requests and another for 16.
    """
    if isinstance(argument, Tiles):
        kind = _TRITON_TYPES[argument.view.dtype]
        if target.tensor_maps:
            return f"tensordesc<{kind}{list(argument.box)}>"
        parts = (argument.view, *_extents(argument.view))
        types = (_triton_type(p, target, is_stride=True, is_part=False) for p in parts)
        return f"({', '.join(types)})"
    if isinstance(argument, View):
        hint = ":16" if is_aligned(argument) and not is_part else ""
        return f"*{_TRITON_TYPES[argument.dtype]}" + hint
    if argument.kind == "f32":
        return "fp32"
    return argument.kind + (":16" if is_stride and int(argument.value) % 16 == 0 else "")


def triton_launch(
    match: Match,
    kernel: str,
    arguments: Mapping[str, Argument],
    constants: Mapping[str, int],
    *,
    grid: tuple[int, int, int],
    op: str,
    num_warps: int = 4,
    num_stages: int = 2,
    rows_of: tuple[str, ...] = (),
    parts: tuple[str, ...] = (),
) -> KernelLaunch:
    """A launch of a lowering, as `kernel_launch` makes it."""
    return kernel_launch(
        match.build,
        match.target,
        kernel,
        arguments,
        constants,
        grid=grid,
        op=op,
        num_warps=num_warps,
        num_stages=num_stages,
        rows_of=rows_of,
        parts=parts,
    )


def kernel_launch(
    build: Callable[[KernelSource], CompiledKernel],
    target: Target,
    kernel: str,
    arguments: Mapping[str, Argument],
    constants: Mapping[str, int],
    *,
    grid: tuple[int, int, int],
    op: str,
    num_warps: int = 4,
    num_stages: int = 2,
    rows_of: tuple[str, ...] = (),
    parts: tuple[str, ...] = (),
) -> KernelLaunch:
    """Compile `module:function` for these arguments and launch it; constants are its constexprs.

    `rows_of` names the arguments that are strides between rows (or pages) which are read whole;
    `parts` those that may be a part of weights that lie joined with others, wherever it begins.
    """
    path, symbol = kernel.split(":")
    signature = {
        n: _triton_type(a, target, is_stride=n in rows_of, is_part=n in parts)
        for n, a in arguments.items()
    }
    source = KernelSource(
        language="triton",
        path=path,
        symbol=symbol,
        signature=signature | dict.fromkeys(constants, "constexpr"),
        constants=dict(constants),
        num_warps=num_warps,
        num_stages=num_stages,
    )
    compiled = build(source)
    own = tuple(p for a in arguments.values() for p in _parameters(a, target))
    return KernelLaunch(
        binary=compiled.binary,
        symbol=compiled.symbol,
        grid=grid,
        block=(target.wave_size * compiled.num_warps, 1, 1),
        params=own + (Null(),) * compiled.trailing_nulls,
        shared_bytes=compiled.shared_bytes,
        op=op,
    )


def _extents(view: View) -> tuple[Scalar, ...]:
    """Rows, columns and the stride of rows of a matrix."""
    return (*map(i32, view.shape), i32(view.strides[0]))


def _parameters(argument: Argument, target: Target) -> tuple[Parameter, ...]:
    """What a kernel takes for an argument: for tiles the map, then extents and strides, or the
    pointer with `_extents`."""
    if isinstance(argument, Scalar):
        return (argument,)
    if isinstance(argument, View):
        return (Pointer(argument),)
    view, box = argument.view, argument.box
    if not target.tensor_maps:
        return (Pointer(view), *_extents(view))
    tiles = TensorMap(view=view, box=box, swizzle=TILE_SWIZZLE, l2_promotion="128B")
    strides = tuple(Scalar("i64", stride) for stride in view.strides)
    return (tiles, *map(i32, view.shape), *strides)


class Carver:
    """Cuts a workspace into tensors that begin at 256-byte borders."""

    def __init__(self, workspace: View | None) -> None:
        self._workspace = workspace
        self.num_bytes = 0

    def take(self, dtype: str, *shape: int) -> View:
        """The next tensor; without a workspace only `num_bytes` counts (to size one)."""
        base = self._workspace
        offset = self.num_bytes + (base.offset if base else 0)
        space: Space = base.space if base else "arena"
        name = base.name if base else ""
        strides = tuple(prod(shape[i + 1 :]) for i in range(len(shape)))
        view = View(
            space=space, name=name, dtype=dtype, shape=shape, strides=strides, offset=offset
        )
        self.num_bytes += -(-prod(shape) * DTYPE_BYTES[dtype] // 256) * 256
        return view
