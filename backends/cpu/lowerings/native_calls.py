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
ROW_BLOCK, K_BLOCK, GROUP = 96, 128, 64
"""Rows, places of a sum and columns of a chunk of a product, as `kernels/multiply.h` cuts them."""
ROOM_BYTES = 8 * (ROW_BLOCK * K_BLOCK + K_BLOCK * GROUP + ROW_BLOCK * GROUP)
"""Its `Room`: x and a weight as products read them, two products before they are rounded."""
SHORT = {"f8E4M3FN": "f8"}
"""Element types as kernels' symbols name them, where that is otherwise."""

_HAS_LIBRARY = Predicate(
    lambda match: (
        None
        if match.target.arch in libraries()
        else f"no library of native kernels comes for {match.target.arch}"
    )
)
ON_HOST = P.not_captured() & P.host_memory() & _HAS_LIBRARY


def of_types(values: str, *wanted: str) -> Predicate:
    """The values' element types are one of the lists that are wanted, as kernels' symbols name
    them. `f8` has a scale for each square block of DeepSeek's checkpoints, all others have none."""
    names = values.split()
    found = Predicate(lambda match: _other_types(match, names, wanted))
    for name in names:
        found = found & Predicate(lambda match, name=name: _other_scales(match, name))
    return found


def alike(values: str) -> Predicate:
    """The values are all f32, or all bf16."""
    count = len(values.split())
    return of_types(values, " ".join(["f32"] * count), " ".join(["bf16"] * count))


def _other_types(match: Match, names: list[str], wanted: tuple[str, ...]) -> str | None:
    got = " ".join(_short(match, name) for name in names)
    if got in wanted:
        return None
    return f"{', '.join(names)} are {got}, wants {' or '.join(wanted)}"


def _other_scales(match: Match, name: str) -> str | None:
    blocks = P.weight_blocks(name) if match.is_scaled(name) else P.ALWAYS
    if match.is_scaled(name) != (_short(match, name) == "f8"):
        return f"{name} is {match.dtype(name)} with{'' if match.is_scaled(name) else 'out'} scales"
    return blocks.refusal(match)


def _short(match: Match, name: str) -> str:
    return SHORT.get(match.dtype(name), match.dtype(name))


def symbol(kernel: str, match: Match, values: str) -> str:
    """A kernel's symbol by the values' element types, which are said once where all are one."""
    types = [_short(match, name) for name in values.split()]
    return "_".join((kernel, *(types[:1] if len(set(types)) == 1 else types)))


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
