"""What a family of ops brings for one case: inputs, what is wanted, and the peer's calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from op_grid import OpCase, PlannedOp
from op_memory import Given, Tensors

COLD_BYTES = 200 << 20
"""Touched by all calls of a graph: more than three times an H200's L2."""


@dataclass(frozen=True)
class Peer:
    """Another library on the same numbers: a call a set; what the first gave, by names of `want`.

    `core` names the one kernel of ours that does what the calls do, where others stand around it
    (`counts`: it has tickets in its workspace); `around` are calls that do what those do, too.
    """

    name: str
    calls: Sequence[Callable[[], object]]
    found: Callable[[], Tensors]
    core: str = ""
    counts: bool = False
    around: Sequence[Callable[[], object]] = ()


@dataclass(frozen=True)
class Trial:
    """`sets` are what calls of a graph rotate over; `want` is of the first, by names of outputs.

    `found` picks the same of our outputs. Integers must be equal but for a share of `bound`.
    """

    sets: Sequence[Given]
    want: Callable[[], Tensors]
    bound: float
    peer: Peer | None
    found: Callable[[Tensors], Tensors] = field(default=lambda outputs: outputs)


class Family(Protocol):
    """Makes trials; may keep what neighbouring cases share."""

    def open(self, op: PlannedOp, peers: Peers) -> Trial:
        """The trial of a case."""
        ...


class Peers:
    """The libraries that are installed, and why the others are not used."""

    def __init__(self, allowed: bool = True) -> None:
        self._allowed = allowed
        self.missing: dict[str, str] = {}
        self._found: dict[str, Any] = {}

    def get(self, module: str) -> Any:
        """The module, None where it does not load."""
        if not self._allowed:
            return None
        if module not in self._found and module not in self.missing:
            try:
                self._found[module] = __import__(module)
            except (ImportError, OSError, RuntimeError, AttributeError, ValueError) as error:
                self.missing[module] = str(error).splitlines()[0][:200]
        return self._found.get(module)


def error_of(got: torch.Tensor, want: torch.Tensor) -> float:
    """|got - want| / |want|; of integers the share that differs."""
    if not want.is_floating_point():
        return float((got != want).double().mean().item())
    norm = cast("Any", want.double().norm()).clamp(min=1e-30)
    return float((cast("Any", (got.double() - want.double()).norm()) / norm).item())


def worst(found: Tensors, want: Tensors) -> float:
    """The largest error of all that was found; NaN where any is."""
    errors = [error_of(value, want[name]) for name, value in found.items()]
    return max(errors) if all(e == e for e in errors) else float("nan")


def count_sets(read_bytes: int, most: int = 16) -> int:
    """Sets of inputs for cold L2, where one reads so much."""
    return max(1, min(most, -(-COLD_BYTES // max(read_bytes, 1))))


def step_inputs(case: OpCase, device: torch.device) -> Tensors:
    """Inputs of a step without padding: equal requests, pages one behind another."""
    bucket = case.bucket
    each = case.rows // case.reqs
    behind = torch.arange(case.rows, device=device) % each
    starts = torch.arange(case.reqs + 1, device=device) * each
    context = case.context or each
    table = 1 + torch.arange(case.reqs * bucket.pages, device=device)
    found = {
        "positions": context - each + behind,
        "q_starts": starts,
        "kv_lens": torch.full((case.reqs,), context, device=device),
        "page_table": table.view(case.reqs, bucket.pages),
        "num_rows": torch.tensor([case.rows], device=device),
    }
    return {name: value.int() for name, value in found.items()}
