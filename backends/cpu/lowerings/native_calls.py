"""Builds launches of the CPU's native kernels, and says where they may be used. Knows no op."""

from __future__ import annotations

from dataclasses import replace

from lostwax.backends import predicates as P
from lostwax.backends.cpu.library import libraries
from lostwax.backends.lowering import Match, Work
from lostwax.backends.predicates import Predicate
from lostwax.ir.contract.kernel import KernelSource
from lostwax.ir.contract.parameter import Null, Pointer, Scalar
from lostwax.ir.contract.program import KernelLaunch, View

Argument = View | int | float | None

TILE = 16
"""Columns of a packed weight that lie together, as `kernels/products.cpp` reads them."""
ROW_BLOCK, GROUP = 48, 64
"""Rows and columns of a chunk of a product: what a filled-up tile is computed into."""

_HAS_LIBRARY = Predicate(
    lambda match: (
        None
        if match.target.arch in libraries()
        else f"no library of native kernels comes for {match.target.arch}"
    )
)
ON_HOST = P.not_captured() & P.host_memory() & _HAS_LIBRARY


def f32(*values: str) -> Predicate:
    """Every value is plain f32."""
    found = P.ALWAYS
    for value in values:
        found = found & P.dtype(value, "f32") & P.plain(value)
    return found


def native(
    match: Match, op: str, symbol: str, *arguments: Argument, scratch_bytes: int = 0
) -> KernelLaunch:
    """A launch of `symbol`; `scratch_bytes` is what each thread takes beside its parameters."""
    kernel = match.build(KernelSource(language="cpp", path="native.cpp", symbol=symbol))
    return KernelLaunch(
        binary=kernel.binary,
        symbol=kernel.symbol,
        grid=(1, 1, 1),
        block=(1, 1, 1),
        params=tuple(_parameter(each) for each in arguments),
        shared_bytes=scratch_bytes,
        op=op,
    )


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
