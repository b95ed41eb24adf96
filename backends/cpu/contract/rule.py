"""What one native kernel takes: its parameters in order, and what it may touch by their integers.

Formulas are Python's integers, which never overflow. Knows no kernel and reads no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

MOST = (1 << 31) - 1
"""What an i32 holds, and more chunks than `kernels/team.h` counts."""
SHORT = {"f8E4M3FN": "f8"}
"""Element types as kernels' symbols name them, where that is otherwise."""
LONG = {short: long for long, short in SHORT.items()}


class Numbers:
    """A launch's integers by their names in its rule; of a pointer, whether it is given."""

    def __init__(self, values: Mapping[str, int]) -> None:
        self._values = values

    def __getattr__(self, name: str) -> int:
        return self._values[name]

    def __str__(self) -> str:
        integers = ((n, v) for n, v in self._values.items() if not isinstance(v, bool))
        return ", ".join(f"{name} {value}" for name, value in integers)


Formula = Callable[[Numbers], int]


@dataclass(frozen=True)
class Memory:
    """A pointer. `reach` counts the elements from it on that the kernel may touch."""

    name: str
    dtype: str
    reach: Formula
    may_be_null: bool = False


@dataclass(frozen=True)
class Nothing:
    """A pointer that must be null."""

    name: str


@dataclass(frozen=True)
class RealRows:
    """[1] i32, the step's input `num_rows`. Every thread reads it, and all must read the same: no
    other parameter may lie there. One at most."""

    name: str = "num_rows"


@dataclass(frozen=True)
class Cache:
    """All pages of a plane, [pages, page_tokens, width], dense. None: any number of page_tokens."""

    name: str
    dtype: str
    width: Formula
    page_tokens: Formula | None = None


@dataclass(frozen=True)
class Pages:
    """How many pages a cache has. The artifact does not give it: the driver appends it, as memory
    is known only then. A kernel reads no page that is not below it, whatever its table says."""

    name: str
    cache: str


@dataclass(frozen=True)
class Slots(Pages):
    """The same of its rows."""


@dataclass(frozen=True)
class Whole:
    """An i32."""

    name: str
    least: int = 0
    most: int = MOST


@dataclass(frozen=True)
class Real:
    """An f32, of which no address is made."""

    name: str


Parameter: TypeAlias = Memory | Nothing | RealRows | Cache | Pages | Whole | Real
Appended = Pages
"""What the driver gives behind what the artifact does."""


@dataclass(frozen=True)
class Demand:
    """What must hold between integers, and how a message says it."""

    text: str
    holds: Callable[[Numbers], bool]


@dataclass(frozen=True)
class Rule:
    """One symbol: `parameters` in the order in which the source reads them, `chunks` that it asks
    `take` for, bytes of scratch that a thread of it touches, and what must hold besides."""

    symbol: str
    parameters: tuple[Parameter, ...]
    chunks: Formula
    scratch_bytes: Formula
    demands: tuple[Demand, ...]


def apart(count: str, step: str, width: str) -> Demand:
    """What is written lies behind one another: else a count that no memory bounds would take
    hours."""

    def holds(n: Numbers) -> bool:
        return getattr(n, count) <= 1 or getattr(n, step) >= getattr(n, width)

    return Demand(f"{step} >= {width} where {count} > 1", holds)


def none(n: Numbers) -> int:
    """The formula of what touches nothing."""
    return 0


def strided(*axes: tuple[int, int]) -> int:
    """Elements up to the last of so many (count, step); none where a count is 0."""
    if any(count < 1 for count, _ in axes):
        return 0
    return 1 + sum((count - 1) * step for count, step in axes)


def parts(whole: int, part: int) -> int:
    """Parts that cover the whole."""
    return -(-whole // part)


def wholes(names: str) -> tuple[Whole, ...]:
    """Integers of 0 and more."""
    return tuple(Whole(name) for name in names.split())


def symbol_of(kernel: str, types: str) -> str:
    """A kernel's symbol by its element types, which are said once where all are one."""
    each = types.split()
    return "_".join((kernel, *(each[:1] if len(set(each)) == 1 else each)))


def rules_of(
    kernel: str,
    types: tuple[str, ...],
    parameters: Callable[..., tuple[Parameter, ...]],
    *,
    chunks: Formula,
    scratch_bytes: Formula = none,
    demands: tuple[Demand, ...] = (),
    symbol: Callable[[str, str], str] = symbol_of,
) -> tuple[Rule, ...]:
    """A rule for each instance of a template: `parameters` of the element types of each, such as
    `bf16 f8 f32`, which `types` lists as the symbol names them."""
    return tuple(
        Rule(symbol(kernel, each), parameters(*each.split()), chunks, scratch_bytes, demands)
        for each in types
    )
