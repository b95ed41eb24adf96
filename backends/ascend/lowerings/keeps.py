"""Conditions of lowerings made from the rules of the operators that they call. Know no operator."""

from __future__ import annotations

from collections.abc import Callable

from lostwax.backends.ascend.contract.rule import Call, Described, refusal
from lostwax.backends.ascend.contract.rules import RULES
from lostwax.backends.lowering import Match
from lostwax.backends.predicates import Predicate

KERNELS = "lostwax.backends.ascend.kernels."


def keeps(op: str, describe: Callable[[Match], Call]) -> Predicate:
    """The call that the lowering makes of the operator keeps the operator's rule."""
    rule = RULES[op]
    return Predicate(lambda match: refusal(rule, describe(match)))


def described(match: Match, value: str) -> Described:
    """A tensor value as it is."""
    return Described(match.dtype(value), match.shape(value))
