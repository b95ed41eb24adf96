"""Each tensor that a lowering gives an operator counts: a wrong one is named by the reference."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import pytest
import torch
from ascend_kit import OWN, WEIGHTS, certified

from lostwax.backends.ascend.kernels import (
    attention,
    cache,
    elementwise,
    experts,
    norms,
    operators,
    products,
    rope,
)
from lostwax.backends.ascend.twins.register import TWINS
from lostwax.backends.proof.check import NotConformant

Given = Callable[[str, str, torch.Tensor], torch.Tensor]
"""What an operator gets in place of an argument: from both names, and the tensor."""
ORDERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "zeros": torch.zeros_like,
    "the first two exchanged": lambda tensor: torch.cat((tensor[:2].flip(0), tensor[2:])),
}


def giving(patch: pytest.MonkeyPatch, given: Given) -> None:
    """Let every host function call operators with `given` of each tensor."""

    def operator(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            bound = signature(TWINS[name]).bind(*args, **kwargs)
            for argument, value in bound.arguments.items():
                if isinstance(value, torch.Tensor):
                    bound.arguments[argument] = given(name, argument, value)
                elif isinstance(value, list) and isinstance(value[0], torch.Tensor):
                    bound.arguments[argument] = [given(name, argument, value[0])]
            return operators.operator(name)(*bound.args, **bound.kwargs)

        return call

    for module in (attention, cache, elementwise, experts, norms, products, rope):
        patch.setattr(module, "operator", operator, raising=False)


CALLING = [
    (weights, low.name)
    for weights in WEIGHTS
    for low in OWN
    if weights == "int8" or low.name in ("ascend_gate_up", "ascend_experts")
]


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "name"), CALLING)
def test_each_tensor_that_an_operator_is_given_counts(
    weights: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros, or its rows in another order, are named by the reference or refused by a rule."""
    chosen = tuple(low for low in OWN if low.name == name)
    seen: set[tuple[str, str]] = set()

    def note(op: str, argument: str, tensor: torch.Tensor) -> torch.Tensor:
        seen.add((op, argument))
        return tensor

    giving(monkeypatch, note)
    certified(weights, chosen)
    unnoticed: set[tuple[str, str, str]] = set()
    for place in sorted(seen):
        for how, other in ORDERS.items():

            def wrong(
                op: str, argument: str, tensor: torch.Tensor, place: Any = place, other: Any = other
            ) -> torch.Tensor:
                return other(tensor) if (op, argument) == place else tensor

            giving(monkeypatch, wrong)
            try:
                certified(weights, chosen)
            except (NotConformant, ValueError):
                continue
            unnoticed.add((*place, how))
    assert unnoticed == set()
