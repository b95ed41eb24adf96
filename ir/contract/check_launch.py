"""Whether a kernel's launch is one that its artifact and its target have. Reads no memory."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from lostwax.ir.contract.check_views import require
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.parameter import (
    ADDRESS_BYTES,
    MAX_PARAMETER_BYTES,
    Blob,
    Parameter,
    Scalar,
    TensorMap,
    parameter_bytes,
)
from lostwax.ir.contract.program import HostCall, KernelLaunch, Launch
from lostwax.ir.contract.target import Target

MAX_BLOCK_THREADS = 1024  # CUDA and HIP
# The CUDA C++ Programming Guide's tables by compute capability, 9.0 and 10.0. HIP's blocks have
# 1024 along each axis, and its targets launch nothing cooperative.
MAX_BLOCK = (1024, 1024, 64)
UNIT_BLOCKS = 32
"""Most blocks that a multiprocessor holds at once."""
SCALARS = {"i32": range(-(1 << 31), 1 << 31), "i64": range(-(1 << 63), 1 << 63)}

# What cuTensorMapEncodeTiled takes, as the CUDA driver API says.
MAX_MAP_EXTENT = 1 << 32
MAX_MAP_STRIDE = 1 << 40  # bytes
MAP_BORDER = 16  # bytes; of addresses, strides and rows of boxes
SWIZZLES = {"32B": 32, "64B": 64, "128B": 128}
FLOATS = ("f64", "f32", "bf16", "f16")
"""Of what a map can hold outside its view as NaN: it knows no fp8, which travels as bytes."""


def check_launch(launch: Launch, symbols: Mapping[str, set[str]], target: Target) -> None:
    """Raise Inconsistent where a kernel's launch is none that the binaries' `symbols` allow, or
    asks for what the target lacks."""
    if isinstance(launch, HostCall):
        return
    require(
        launch.symbol in symbols.get(launch.binary, ()),
        f"{_named(launch)} names binary {launch.binary!r}, where the manifest lists no such kernel",
    )
    check_form(launch, target)


def _named(launch: KernelLaunch) -> str:
    return f"the launch of {launch.symbol!r}"


def check_form(launch: KernelLaunch, target: Target) -> None:
    """Raise Inconsistent for sizes, attributes or parameters that no launch on the target has."""
    what = _named(launch)
    require(prod(launch.block) <= MAX_BLOCK_THREADS, f"{what} has too many threads a block")
    require(
        all(n <= most for n, most in zip(launch.block, MAX_BLOCK, strict=True)),
        f"{what} has blocks of {launch.block} threads, {MAX_BLOCK} at most",
    )
    require(
        launch.shared_bytes <= target.shared_memory_bytes,
        f"{what} asks for {launch.shared_bytes} bytes of shared memory a block, target"
        f" {target.name} has {target.shared_memory_bytes} (its fact shared_memory_bytes)",
    )
    _check_attributes(launch, target)
    total = parameter_bytes(launch.params)
    require(
        total <= MAX_PARAMETER_BYTES,
        f"{what} has {total} bytes of parameters, a kernel takes {MAX_PARAMETER_BYTES}",
    )
    for parameter in launch.params:
        _check_parameter(parameter, what, target)


def _check_attributes(launch: KernelLaunch, target: Target) -> None:
    what, blocks = _named(launch), prod(launch.cluster)
    require(
        blocks <= target.cluster_blocks,
        f"{what} wants clusters of {blocks} blocks, target {target.name} has clusters of at most"
        f" {target.cluster_blocks} (its fact cluster_blocks)",
    )
    require(
        all(n % of == 0 for n, of in zip(launch.grid, launch.cluster, strict=True)),
        f"{what} has a grid of {launch.grid} blocks, no whole clusters of {launch.cluster}",
    )
    require(
        target.programmatic_launch or not launch.programmatic,
        f"{what} is programmatic, which target {target.name} lacks (its fact programmatic_launch)",
    )
    require(
        target.cooperative_launch or not launch.cooperative,
        f"{what} is cooperative, which target {target.name} lacks (its fact cooperative_launch)",
    )
    wanted, resident = prod(launch.grid), target.compute_units * UNIT_BLOCKS
    require(
        not launch.cooperative or wanted <= resident,
        f"{what} is cooperative over {wanted} blocks, target {target.name} holds {resident} at once"
        f" at most ({UNIT_BLOCKS} for each of its fact compute_units)",
    )


def _check_parameter(parameter: Parameter, what: str, target: Target) -> None:
    match parameter:
        case Scalar() if parameter.kind in SCALARS:
            value = parameter.value
            fits = isinstance(value, int) and value in SCALARS[parameter.kind]
            require(fits, f"{what} has a parameter that is no {parameter.kind}")
        case Blob():
            _check_blob(parameter, what)
        case TensorMap():
            require(
                target.tensor_maps,
                f"{what} takes a tensor map, which target {target.name} lacks (its fact"
                " tensor_maps); give its lowering the predicate fact('tensor_maps', True)",
            )
            check_tensor_map(parameter, what)
        case _:
            pass


def _check_blob(blob: Blob, what: str) -> None:
    ends = 0
    for each in sorted(blob.relocations, key=lambda r: r.offset):
        here, place = each.offset, f"{what} has an address at byte {each.offset} of a blob"
        require(here % ADDRESS_BYTES == 0, f"{place}, which is not at a border of {ADDRESS_BYTES}")
        require(here >= ends, f"{place}, inside another one")
        ends = here + ADDRESS_BYTES
        size = len(blob.data)
        require(ends <= size, f"{place}, which has {size} bytes")
        require(not any(blob.data[here:ends]), f"{place}, where the blob is not zero")
        require(blob.alignment >= ADDRESS_BYTES, f"{place} that begins anywhere; align the blob")
        span = _span(each.view.shape, each.view.strides, each.view.dtype)
        require(
            each.addend == 0 or each.addend < span,
            f"{place} that lies {each.addend} bytes into a view of {span}",
        )


def _span(shape: tuple[int, ...], strides: tuple[int, ...], dtype: str) -> int:
    """Bytes from the first element to the last; of open pages, in the first page."""
    if len(shape) != len(strides):
        return 0  # no view: refused as one
    closed = [1 if n == -1 else n for n in shape]
    if any(n < 1 for n in closed):
        return 0
    last = sum((n - 1) * s for n, s in zip(closed, strides, strict=True))
    return (last + 1) * DTYPE_BYTES.get(dtype, 0)


def check_tensor_map(tensor_map: TensorMap, what: str) -> None:
    """Raise Inconsistent for a map that the driver could not encode."""
    view, box, what = tensor_map.view, tensor_map.box, f"{what} has a tensor map"
    rank, width = len(view.shape), DTYPE_BYTES.get(view.dtype, 0)
    require(width > 0, f"{what} of unknown dtype {view.dtype!r}")
    least = 1 if tensor_map.interleave == "none" else 3
    require(least <= rank <= 5, f"{what} of rank {rank}, wants {least} to 5")
    require(len(view.strides) == rank, f"{what} with {len(view.strides)} strides of {rank} axes")
    require(len(box) == rank, f"{what} with a box of {len(box)} axes, its view has {rank}")
    require(
        all(n == -1 or 1 <= n <= MAX_MAP_EXTENT for n in view.shape),
        f"{what} over {list(view.shape)} elements, wants 1 to {MAX_MAP_EXTENT} of each axis",
    )
    require(view.strides[-1] == 1, f"{what} whose last axis is not dense")
    border = 2 * MAP_BORDER if tensor_map.interleave == "32B" else MAP_BORDER
    strides = [stride * width for stride in view.strides[:-1]]
    require(
        all(0 < stride < MAX_MAP_STRIDE and stride % border == 0 for stride in strides),
        f"{what} with strides of {strides} bytes, wants multiples of {border} below 2**40",
    )
    require(view.offset % border == 0, f"{what} at byte {view.offset}, wants multiples of {border}")
    _check_box(tensor_map, box[-1] * width, what)
    require(
        tensor_map.fill == "zero" or view.dtype in FLOATS,
        f"{what} of {view.dtype} filled with NaN, which only {', '.join(FLOATS)} can be",
    )


def _check_box(tensor_map: TensorMap, row_bytes: int, what: str) -> None:
    swizzle, interleave = tensor_map.swizzle, tensor_map.interleave
    if interleave == "none":
        require(
            row_bytes % MAP_BORDER == 0,
            f"{what} with rows of {row_bytes} bytes in a box, wants multiples of {MAP_BORDER}",
        )
        widest = SWIZZLES.get(swizzle, row_bytes)
        require(
            row_bytes <= widest,
            f"{what} with rows of {row_bytes} bytes in a box, swizzle {swizzle} takes {widest}",
        )
    elif interleave == "32B":
        require(swizzle == "32B", f"{what} interleaved by 32B, which wants a swizzle of 32B")
