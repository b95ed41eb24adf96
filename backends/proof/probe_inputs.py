"""Inputs of a golden probe: kept where small, else drawn from a seed. Runs nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from xdsl.ir import SSAValue

from lostwax.backends.proof.inputs import WEIGHTS, named_inputs, region_values, roles
from lostwax.backends.proof.run_alone import Alone
from lostwax.backends.proof.step_cases import StepCase
from lostwax.backends.runtime.draw import UNIT, array_of, cache_of, kept
from lostwax.backends.runtime.run_probe import part_value
from lostwax.ir.contract.probe import Data, Drawn, DrawnCache, Given, GivenWeight, Part
from lostwax.ir.contract.program import HostCall, Launch, Pointer, View
from lostwax.ir.contract.step import STEP_INPUTS
from lostwax.ir.reference.cache_bytes import CacheBytes
from lostwax.ir.reference.dtype import FP8_MAX, Array, Scaled, dtype_name
from lostwax.ir.reference.interpret import Bound
from lostwax.ir.types import CacheType, TensorType

KEPT_BYTES = 512
"""Larger arrays of plain numbers are drawn."""
NEAR_ONE = frozenset({("core.rms_norm", "weight"), ("core.layer_norm", "weight")})
SPECIAL = frozenset(
    {("dsa.topk", "logits"), ("moe.experts", "weights"), ("moe.experts", "ids"),
     ("mla.attend", "selection")}
)  # fmt: skip
"""Values with a structure of their own, which no drawing gives."""


@dataclass(frozen=True)
class ProbeInputs:
    """What the buffers hold, and the same as values for the reference."""

    given: tuple[Given, ...]
    weights: tuple[GivenWeight, ...]
    values: dict[SSAValue, Bound]
    case: StepCase


def _seed(probe_id: str, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{probe_id} {name}".encode()).digest()[:6], "little")


def views_of(launches: Iterable[Launch]) -> Iterable[View]:
    """Every view that the launches name."""
    for launch in launches:
        if isinstance(launch, HostCall):
            yield from (view for view in launch.args if view is not None)
        else:
            yield from (p.view for p in launch.params if isinstance(p, Pointer))


def probe_inputs(
    alone: Alone, launches: tuple[Launch, ...], case: StepCase, probe_id: str
) -> ProbeInputs:
    """Inputs for all buffers that the launches read, and values for the region's reference."""
    match = alone.candidate.region
    operands = alone.candidate.weight_operands
    values: dict[SSAValue, Bound] = dict(region_values(match, case, operands))
    given: list[Given] = []
    for name, value in named_inputs(match).items():
        if name in operands:
            continue
        values[value], made = _given(alone, name, value, values[value], _seed(probe_id, name))
        given += made
    used = {view.name for view in views_of(launches)}
    for name in STEP_INPUTS:
        if f"step.{name}" in used:
            array = case.inputs[name]
            given.append(Given(name=f"step.{name}", data=kept(array, dtype_name(array))))
    parts = _weight_parts(alone, probe_id)
    for operand, weight in operands.items():
        bound = match.values[operand]
        assert isinstance(bound, SSAValue)  # weights are never variadic
        values[bound] = part_value(parts[weight])
    return ProbeInputs(tuple(given), _weights(alone, parts, frozenset(used)), values, case)


def _given(
    alone: Alone, name: str, value: SSAValue, bound: Bound, seed: int
) -> tuple[Bound, list[Given]]:
    """One input's value and buffers: as drawn for the kit if small or special, else ours."""
    kind = value.type
    if isinstance(bound, CacheBytes):
        assert isinstance(kind, CacheType)
        drawn = DrawnCache(
            layout=kind.layout.data,
            row=kind.row,
            page_tokens=kind.page_tokens.data,
            pages=bound.data.shape[0],
            seed=seed,
        )
        return cache_of(drawn), [Given(name=name, data=drawn)]
    if isinstance(bound, Scaled):
        scales = kept(bound.scales, dtype_name(bound.scales))
        values = kept(bound.values, dtype_name(bound.values))
        return bound, [Given(name=name, data=values), Given(name=f"{name}:scale", data=scales)]
    used = roles(alone.candidate.region, value)
    if bound.nbytes <= KEPT_BYTES or used & SPECIAL or np.issubdtype(bound.dtype, np.integer):
        return bound, [Given(name=name, data=kept(bound, dtype_name(bound)))]
    low, high = (0.8, 1.2) if used & NEAR_ONE else (-UNIT, UNIT)
    if used & WEIGHTS:
        low, high = _matrix(bound)
    edges = isinstance(kind, TensorType) and not used & (NEAR_ONE | WEIGHTS)
    data = Drawn(
        shape=bound.shape, dtype=dtype_name(bound), seed=seed, low=low, high=high, edges=edges
    )
    return array_of(data), [Given(name=name, data=data)]


def _matrix(array: Array) -> tuple[float, float]:
    bound = UNIT / float(np.sqrt(array.shape[-1]))
    return -bound, bound


def _weight_parts(alone: Alone, probe_id: str) -> dict[str, Part]:
    """Every logical weight that lies in a stored tensor of the region's weights."""
    candidate, storage = alone.candidate, alone.storage
    wanted = {p for w in candidate.weight_operands.values() for p in storage.holder[w].parts}
    near_one = {
        weight
        for operand, weight in candidate.weight_operands.items()
        if _roles_of(alone, operand) & NEAR_ONE
    }
    parts: dict[str, Part] = {}
    for name in sorted(wanted):
        kind = storage.types[name]
        seed = _seed(probe_id, name)
        if kind.scale is None or kind.scale_shape is None:
            width = kind.shape[-1] if len(kind.shape) > 1 else 300
            bound = UNIT / float(np.sqrt(width))
            low, high = (0.8, 1.2) if name in near_one else (-bound, bound)
            parts[name] = Part(values=_plain(kind.shape, kind.dtype, seed, low, high))
            continue
        largest = FP8_MAX[kind.dtype]
        scale = UNIT / largest / float(np.sqrt(kind.shape[-1]))
        rows, cols = kind.scale.block(kind.shape)
        scales = _plain(kind.scale_shape, kind.scale.dtype, seed + 1, scale / 2, scale * 1.5)
        parts[name] = Part(
            values=_plain(kind.shape, kind.dtype, seed, -largest, largest),
            scales=scales,
            rows=rows,
            cols=cols,
        )
    return parts


def _roles_of(alone: Alone, operand: str) -> set[tuple[str, str]]:
    bound = alone.candidate.region.values[operand]
    assert isinstance(bound, SSAValue)
    return roles(alone.candidate.region, bound)


def _plain(shape: tuple[int, ...], dtype: str, seed: int, low: float, high: float) -> Data:
    return Drawn(shape=shape, dtype=dtype, seed=seed, low=low, high=high)


def _weights(
    alone: Alone, parts: Mapping[str, Part], used: frozenset[str]
) -> tuple[GivenWeight, ...]:
    """The stored tensors that the launches read; one rank's share is drawn as it is."""
    return tuple(
        GivenWeight(stored=stored, parts=tuple(parts[part.name] for part in stored.parts))
        for stored in alone.storage.held_weights(used)
        if all(part.name in parts for part in stored.parts)
    )
