"""What a rule of an operator's arguments can say, as data, and whether a call keeps it.

Knows no operator, no torch. The same rules refuse a lowering before it is emitted and a call of an
operator's CPU twin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Value = int | float | str | bool


@dataclass(frozen=True, slots=True)
class Axis:
    """Which sizes an axis may have."""

    one_of: tuple[int, ...] = ()
    multiple_of: int = 1
    least: int = 0
    most: int | None = None

    def refusal(self, size: int) -> str | None:
        """What is wanted instead, None where the size fits."""
        if self.one_of and size not in self.one_of:
            return f"one of {', '.join(map(str, self.one_of))}"
        if size % self.multiple_of:
            return f"a multiple of {self.multiple_of}"
        if size < self.least:
            return f"at least {self.least}"
        if self.most is not None and size > self.most:
            return f"at most {self.most}"
        return None


@dataclass(frozen=True, slots=True)
class Argument:
    """A tensor argument: element types, the names of its axes or their sizes, and whether its
    numbers must lie dense. Axes of one name are equal in all arguments.
    """

    dtypes: tuple[str, ...]
    shape: tuple[int | str, ...]
    dense: bool = False


Lengths = Literal["cumulative", "each", "shares", "places"]
"""How integers are counted: the sum up to each one's end, which ends with the whole; each by
itself, at most the whole; each by itself, together the whole; or places, each once, -1 for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What an operator takes on A2 and A3.

    `axes` bounds axes by name (and numbers that a call derives), `values` the arguments that are no
    tensors, `same` lists arguments of one element type, `lengths` says how lengths are counted,
    of how much as a product of axes.
    """

    op: str
    arguments: Mapping[str, Argument]
    axes: Mapping[str, Axis] = field(default_factory=dict[str, Axis])
    values: Mapping[str, tuple[Value, ...]] = field(default_factory=dict[str, tuple[Value, ...]])
    same: tuple[tuple[str, ...], ...] = ()
    lengths: Mapping[str, tuple[Lengths, str]] = field(
        default_factory=dict[str, tuple[Lengths, str]]
    )


@dataclass(frozen=True, slots=True)
class Described:
    """A tensor of a call: what a rule looks at."""

    dtype: str
    shape: tuple[int, ...]
    dense: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """A call of an operator: its tensors and other arguments by name, and numbers that the rule
    names in `axes` and that no axis has (`derived`). What is left out is None there, too.
    """

    tensors: Mapping[str, Described]
    values: Mapping[str, Value] = field(default_factory=dict[str, Value])
    derived: Mapping[str, int] = field(default_factory=dict[str, int])


def refusal(rule: Rule, call: Call) -> str | None:
    """The first thing about the call that the operator's documentation forbids, as a sentence."""
    sizes: dict[str, int] = {}
    found = next(
        (each for name, t in call.tensors.items() if (each := _tensor(rule, name, t, sizes))), None
    )
    found = found or _sizes(rule, {**sizes, **call.derived})
    found = found or _values(rule, call.values) or _same(rule, call.tensors)
    return f"{rule.op}: {found}" if found else None


def _tensor(rule: Rule, name: str, given: Described, sizes: dict[str, int]) -> str | None:
    wanted = rule.arguments.get(name)
    if wanted is None:
        return f"{name} is not an argument that the rule knows"
    if given.dtype not in wanted.dtypes:
        return f"{name} is {given.dtype}, wants {' or '.join(wanted.dtypes)}"
    if len(given.shape) != len(wanted.shape):
        return f"{name} is {list(given.shape)}, wants {len(wanted.shape)} axes"
    if wanted.dense and not given.dense:
        return f"{name} does not lie dense, which it must"
    for axis, size in zip(wanted.shape, given.shape, strict=True):
        known = axis if isinstance(axis, int) else sizes.setdefault(axis, size)
        if size != known:
            return f"axis {axis} of {name} is {size}, wants {known}"
    return None


def _sizes(rule: Rule, sizes: Mapping[str, int]) -> str | None:
    for name, axis in rule.axes.items():
        wanted = axis.refusal(sizes[name]) if name in sizes else None
        if wanted:
            return f"{name} is {sizes[name]}, wants {wanted}"
    return None


def _values(rule: Rule, values: Mapping[str, Value]) -> str | None:
    for name, allowed in rule.values.items():
        if name in values and values[name] not in allowed:
            return f"{name} is {values[name]!r}, wants {' or '.join(map(repr, allowed))}"
    return None


def _same(rule: Rule, tensors: Mapping[str, Described]) -> str | None:
    for group in rule.same:
        kinds = {name: tensors[name].dtype for name in group if name in tensors}
        if len(set(kinds.values())) > 1:
            return f"{' and '.join(kinds)} are {' and '.join(kinds.values())}, wants one type"
    return None
