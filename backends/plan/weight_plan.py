"""Plans stored weights out of checkpoint tensors, and the cache planes. Reads no file."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.plan.storage import Storage
from lostwax.ir.contract.caches import CachePlane
from lostwax.ir.contract.dtypes import packed_bytes
from lostwax.ir.contract.model import WeightTable
from lostwax.ir.contract.program import Program, views_of
from lostwax.ir.contract.weights import WeightPlan
from lostwax.ir.op import row_bytes
from lostwax.ir.types import CacheType


def weight_groups(contexts: Sequence[ProgramContext]) -> dict[str, tuple[str, ...]]:
    """Block kinds that share a prefix, and so weights, by the name of their group."""
    prefixes: dict[str, set[str]] = {}
    for context in contexts:
        for call in context.calls:
            prefixes.setdefault(call.callee.root_reference.data, set()).add(call.prefix.data)
    groups: list[list[str]] = []
    for kind in prefixes:
        home = next((g for g in groups if any(prefixes[k] & prefixes[kind] for k in g)), None)
        if home is None:
            groups.append([kind])
        else:
            home.append(kind)
    return {"+".join(g): tuple(g) for g in groups}


def _used(programs: Sequence[Program], kinds: Sequence[str]) -> frozenset[str]:
    """Stored names that some program reads in these block kinds."""
    return frozenset(
        view.name
        for program in programs
        for kind in kinds
        for launch in program.blocks.get(kind, ())
        for view in views_of(launch)
        if view.space == "weight"
    )


def plan_weights(
    contexts: Sequence[ProgramContext],
    programs: Sequence[Program],
    groups: dict[str, tuple[str, ...]],
    storage: dict[str, Storage],
    weights: WeightTable,
) -> WeightPlan:
    """What to store for every layer; weights that no program reads are left out."""
    stored = {
        group: storage[kinds[0]].stored_weights(_used(programs, kinds))
        for group, kinds in groups.items()
    }
    home = {kind: group for group, kinds in groups.items() for kind in kinds}
    prefixes: dict[str, str] = {}
    for context in contexts:
        for call in context.calls:
            prefixes[call.prefix.data] = home[call.callee.root_reference.data]
    sources = {
        prefix + part.name: weights[prefix + part.name]
        for prefix, group in prefixes.items()
        for tensor in stored[group]
        for part in tensor.parts
        if weights
    }
    return WeightPlan(stored=stored, groups=prefixes, sources=sources)


def weight_bytes(plan: WeightPlan) -> int:
    """Bytes of all stored weights of all layers."""
    each = {
        group: sum(packed_bytes(t.dtype, prod(t.shape)) for t in tensors)
        for group, tensors in plan.stored.items()
    }
    return sum(each[group] for group in plan.groups.values())


def planes_of(context: ProgramContext, layers: int) -> tuple[CachePlane, ...]:
    """The cache planes that the program's blocks use, for so many layers."""
    planes: dict[str, CachePlane] = {}
    for block in context.blocks.values():
        for argument in block.function.body.block.args:
            kind = argument.type
            if isinstance(kind, CacheType):
                planes[kind.plane.data] = CachePlane(
                    name=kind.plane.data,
                    layers=layers,
                    layout=kind.layout.data,
                    row=kind.row,
                    page_tokens=kind.page_tokens.data,
                    page_bytes=row_bytes(kind) * kind.page_tokens.data,
                )
    return tuple(planes[name] for name in sorted(planes))
