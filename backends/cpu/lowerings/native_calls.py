"""Builds launches of the CPU's native kernels, and says where they may be used. Knows no op."""

from __future__ import annotations

from dataclasses import replace

from lostwax.backends import predicates as P
from lostwax.backends.cpu.contract.check_native import check_native
from lostwax.backends.cpu.contract.rule import symbol_of
from lostwax.backends.cpu.contract.sizes import ROOM_BYTES as ROOM_BYTES
from lostwax.backends.cpu.contract.sizes import TILE as TILE
from lostwax.backends.cpu.library import libraries
from lostwax.backends.lowering import Match, Work
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.parameter import Null, Pointer, Scalar
from lostwax.ir.contract.program import KernelLaunch, View
from lostwax.ir.contract.scale_layout import FP8_BLOCKS, FP8_ROW_BLOCKS, BlockScale, ScaleLayout

Argument = View | int | float | None

SCALED: dict[tuple[str, ScaleLayout], str] = {
    ("f8E4M3FN", FP8_BLOCKS): "f8",
    ("f8E4M3FN", FP8_ROW_BLOCKS): "q8",
}
"""Types of values with scales as kernels' symbols name them: weights in the square blocks of
DeepSeek's checkpoints, activations with a scale for such a block's columns of a row. The third,
`s8`, is int8 with a scale a row, whose width the layout says."""

_HAS_LIBRARY = Predicate(
    lambda match: (
        None
        if match.target.arch in libraries()
        else f"no library of native kernels comes for {match.target.arch}"
    )
)
ON_HOST = P.not_captured() & P.host_memory() & _HAS_LIBRARY


def of_types(values: str, *wanted: str) -> Predicate:
    """The values' types are one of the lists that are wanted, as kernels' symbols name them: those
    with scales by these, too (`SCALED`), all others by their elements alone."""
    names = values.split()
    return Predicate(lambda match: _other_types(match, names, wanted))


def alike(values: str) -> Predicate:
    """The values are all f32, or all bf16."""
    count = len(values.split())
    return of_types(values, " ".join(["f32"] * count), " ".join(["bf16"] * count))


def _other_types(match: Match, names: list[str], wanted: tuple[str, ...]) -> str | None:
    got = " ".join(type_name(match, name) for name in names)
    if got in wanted:
        return None
    return f"{', '.join(names)} are {got}, wants {' or '.join(wanted)}"


def type_name(match: Match, value: str) -> str:
    """A tensor's type as kernels' symbols name it; a sentence where none reads it."""
    dtype, scale = match.dtype(value), match.scale(value)
    if scale is None:
        return dtype
    if scale == BlockScale(rows=1, cols=match.shape(value)[-1], dtype="f32") and dtype == "si8":
        return "s8"
    return SCALED.get((dtype, scale), f"{dtype} {scale}")


def symbol(kernel: str, match: Match, values: str) -> str:
    """A kernel's symbol by the values' types, which are said once where all are one."""
    return symbol_of(kernel, " ".join(type_name(match, name) for name in values.split()))


def native(
    match: Match, op: str, symbol: str, *arguments: Argument, scratch_bytes: int = 0
) -> KernelLaunch:
    """A launch of `symbol`; `scratch_bytes` is what each thread takes beside its parameters.

    Raises Unfit where it breaks the symbol's rule (`cpu/contract/`): the driver would refuse it.
    """
    kernel = match.build(KernelSource(language="cpp", path="native.cpp", symbol=symbol))
    launch = KernelLaunch(
        binary=kernel.binary,
        symbol=kernel.symbol,
        grid=(1, 1, 1),
        block=(1, 1, 1),
        params=tuple(_parameter(each) for each in arguments),
        shared_bytes=scratch_bytes,
        op=op,
    )
    check_native(launch)
    return launch


def _parameter(argument: Argument) -> Pointer | Scalar | Null:
    if argument is None:
        return Null()
    if isinstance(argument, View):
        return Pointer(argument)
    return Scalar("f32" if isinstance(argument, float) else "i32", argument)


def num_rows(match: Match) -> View:
    """Where a kernel reads how many of its rows are real: [1] i32."""
    return match.step_input("num_rows")


def in_a_list(work: Work) -> Work:
    """The work of kernels that run from a list: a barrier each, a tenth of a torch call."""
    return replace(work, launches=0)
