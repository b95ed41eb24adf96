"""`--batch-invariant`: one lowering with one knob setting an op, in every program alike.

Then a row's result depends on nothing but the row and what is cached for it: not on its neighbours,
the bucket, the guard, chunking or drafting. Knows no target.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from xdsl.ir import Operation

from lostwax.backends.lowering import Lowering
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.cover import Cover, Priced
from lostwax.backends.plan.price import NoMeasurements, Price, price
from lostwax.backends.plan.program_context import BlockFunction

Key = tuple[str, tuple[str, ...]]
"""(lowering or op, names of the weights that it reads)."""


class NotInvariant(ValueError):
    """Two programs would compute one op in two ways; the message names the op and both."""


class OnePrice:
    """Prices a lowering once for all programs, so that the cheapest cover is the same in all.

    The first program that has the site decides the price, and records do not count: they are made
    a bucket class, and would choose by it. Nor does what is prepared once a step: its share hangs
    on a program's layers.
    """

    def __init__(self) -> None:
        self._prices: dict[Key, Price] = {}

    def refusal(self, lowering: Lowering) -> str | None:
        """Why the lowering is no choice here, None if it is one."""
        if lowering.row_invariant and lowering.deterministic:
            return None
        return "--batch-invariant: its rows may depend on the rows beside them"

    def price(self, candidate: Candidate) -> Price:
        """The price with the first value of every knob."""
        assert candidate.lowering is not None
        key = (candidate.name, tuple(sorted(candidate.weight_operands.values())))
        if key not in self._prices:
            knobs = candidate.lowering.default_knobs()
            self._prices[key] = price(candidate, NoMeasurements(), knobs)
        return self._prices[key]


Choice = tuple[str, tuple[tuple[str, int], ...]]


def _weights(op: Operation, block: BlockFunction) -> tuple[str, ...]:
    return tuple(n for v in op.operands if (n := block.weight_name(v)) is not None)


def _choices(cover: Cover) -> Iterator[tuple[Key, Choice]]:
    for p in cover.chosen:
        if p.candidate.lowering is not None:
            chosen = (p.candidate.name, _knobs(p))
            for op in p.candidate.region.ops.values():
                yield (op.name, _weights(op, cover.candidates.block)), chosen


def _knobs(priced: Priced) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(priced.price.knobs.items()))


def require_invariant(
    covers: Sequence[Mapping[str, Cover]], groups: Mapping[str, Sequence[str]]
) -> None:
    """Raise NotInvariant unless all programs cover each op of a group of block kinds alike.

    Ops are told apart by the weights that they read; those that read none are compared together.
    """
    for kinds in groups.values():
        first: dict[Key, tuple[set[Choice], str]] = {}
        for program in covers:
            found: dict[Key, set[Choice]] = {}
            for kind in (k for k in kinds if k in program):
                for key, choice in _choices(program[kind]):
                    found.setdefault(key, set()).add(choice)
            for key, choices in found.items():
                name = next(iter(program.values())).candidates.context.name
                before, where = first.setdefault(key, (choices, name))
                if before != choices:
                    raise NotInvariant(
                        f"--batch-invariant: {key[0]} {' '.join(key[1])} runs as {_text(before)} in"
                        f" {where}, as {_text(choices)} in {name}; force one with"
                        f" --lowering {key[0]}=NAME"
                    )


def _text(choices: set[Choice]) -> str:
    return " and ".join(sorted(name for name, _ in choices))
