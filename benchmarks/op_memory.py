"""Memory of one planned op on the GPU: what is given, weights in the forms that launches read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from op_grid import PlannedOp

from lostwax.backends.cuda.driver import CudaDriver
from lostwax.backends.runtime.form_tensor import form
from lostwax.backends.runtime.form_weight import SourceTensors
from lostwax.backends.runtime.tensors import tensor_of
from lostwax.ir.contract.parameter import Pointer
from lostwax.ir.contract.program import KernelLaunch, View, views_of
from lostwax.ir.contract.weights import StoredWeight

STEP, WORKSPACE = "step.", "workspace"
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Given:
    """Values by name (scales are `NAME:scale`) and logical weights with their scales."""

    values: Tensors
    weights: Mapping[str, SourceTensors] = field(default_factory=dict[str, SourceTensors])


def bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's memory as u8, copied where it is not dense."""
    return tensor.contiguous().view(-1).view(torch.uint8)


class Scratch:
    """What the sets of an op share: results, workspaces, values between launches."""

    def __init__(self, op: PlannedOp, driver: CudaDriver) -> None:
        reach: dict[tuple[str, str], int] = {}
        for launch in op.launches:
            for view in views_of(launch):
                if -1 not in view.shape[:1]:
                    key = (view.space, view.name)
                    reach[key] = max(reach.get(key, 0), view.offset + view.span_bytes)
        self._reach, self._driver = reach, driver
        self._held: dict[tuple[str, str], torch.Tensor] = {}
        self._formed: dict[tuple[object, ...], torch.Tensor] = {}

    def formed(self, stored: StoredWeight, given: Given) -> torch.Tensor:
        """A weight's bytes as launches read it; one copy for sets that share its parts."""
        parts = [given.weights[part.name] for part in stored.parts]
        key = (stored.name, *(part.values.data_ptr() for part in parts))
        if key not in self._formed:
            read = [[lambda p=part: p] for part in parts]
            self._formed[key] = bytes_of(form(stored, read, device=self._driver.device))
        return self._formed[key]

    def __call__(self, view: View) -> torch.Tensor:
        """The buffer that the view lies in; NaN at first, but for what must be zero."""
        key = (view.space, view.name)
        if key not in self._held:
            made = self._driver.allocate(self._reach[key])
            self._held[key] = made if view.space == "zeroed" else made.fill_(255)
        return self._held[key]

    def is_left_zero(self) -> bool:
        """Whether the zeroed workspace is."""
        return not any(t.any() for (space, _), t in self._held.items() if space == "zeroed")


class Memory:
    """One set of inputs, and the launches over it."""

    def __init__(self, op: PlannedOp, driver: CudaDriver, given: Given, scratch: Scratch) -> None:
        self._held = {name: bytes_of(value) for name, value in given.values.items()}
        for stored in op.stored:
            self._held[stored.name] = scratch.formed(stored, given)
        self._scratch = scratch
        self._outputs = op.outputs
        self._thunks = [driver.bind(launch, self.resolve) for launch in op.launches]
        self._launches = op.launches
        self._of_step = frozenset(op.of_step)

    def resolve(self, view: View) -> torch.Tensor:
        """A view's tensor."""
        held = self._held.get(view.name.removeprefix(STEP))
        return tensor_of(self._scratch(view) if held is None else held, view)

    def outputs(self) -> Tensors:
        """What leaves, by name."""
        return {name: self.resolve(view) for name, view in self._outputs.items()}

    def run(self) -> None:
        """All launches."""
        for thunk in self._thunks:
            thunk()

    def run_layer(self) -> None:
        """All but those that make what all layers of a step share."""
        for number, thunk in enumerate(self._thunks):
            if number not in self._of_step:
                thunk()

    def of_symbol(self, symbol: str, counts: bool) -> Callable[[], None]:
        """The launches of one kernel alone, which is among them. One that counts tickets in its
        workspace gets it zeroed, as by the launch before it."""
        chosen: list[Callable[[], object]] = []
        for launch, thunk in zip(self._launches, self._thunks, strict=True):
            if not isinstance(launch, KernelLaunch) or launch.symbol != symbol:
                continue
            if counts:
                pointers = [p.view for p in launch.params if isinstance(p, Pointer)]
                chosen += [self.resolve(v).zero_ for v in pointers if v.name == WORKSPACE]
            chosen.append(thunk)
        if not chosen:
            raise ValueError(f"there is no launch of {symbol}")

        def run() -> None:
            for thunk in chosen:
                thunk()

        return run
