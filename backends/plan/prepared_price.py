"""What candidates have prepared once a step, as part of their prices. Chooses nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod

from xdsl.ir import Operation

from lostwax.backends.plan.cover import CandidateSet, Priced
from lostwax.backends.plan.layout import step_key
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.step_kernel import Prepared
from lostwax.ir.contract.target import Target


def prepared_us(op: Prepared, target: Target) -> float:
    """Microseconds once a step: as timed where the op says so, else a launch that writes its
    outputs."""
    if op.us is not None:
        return op.us
    written = sum(prod(shape) * DTYPE_BYTES[dtype] for _, dtype, shape in op.outputs)
    return written / (target.bandwidth_gbps * 1e3) + target.launch_us


def with_prepared(program: Mapping[str, CandidateSet]) -> dict[str, CandidateSet]:
    """A program's candidates by block kind, each price with its share of what is prepared.

    What equal step ops cost is shared equally by all places of the program, in all calls of its
    blocks, that may use them: one of 61 layers pays a 61st. Places are counted before anything is
    chosen; where some then choose otherwise, the rest pay too little.
    """
    asked = [
        (cset, p, {step_key(op): op for op in _prepared(p)})
        for cset in program.values()
        for p in cset.priced
    ]
    users: dict[bytes, dict[str, list[frozenset[Operation]]]] = {}
    for cset, p, ops in asked:
        for key in ops:
            blocks = users.setdefault(key, {})
            blocks.setdefault(cset.block.name, []).append(p.candidate.region.members)
    calls = {
        name: Counter(c.callee.root_reference.data for c in cset.context.calls)[name]
        for name, cset in program.items()
    }
    places = {
        key: sum(calls[name] * _apart(regions) for name, regions in blocks.items())
        for key, blocks in users.items()
    }
    made: dict[str, list[Priced]] = {name: [] for name in program}
    for cset, p, ops in asked:
        shares = (prepared_us(op, cset.context.target) / places[key] for key, op in ops.items())
        price = replace(p.price, prepared=round(sum(shares) * 1e6))
        made[cset.block.name].append(replace(p, price=price))
    return {name: replace(cset, priced=tuple(made[name])) for name, cset in program.items()}


def _prepared(priced: Priced) -> tuple[Prepared, ...]:
    candidate = priced.candidate
    if candidate.lowering is None:
        return ()
    return candidate.lowering.prepare(candidate, priced.price.knobs)


def _apart(regions: Iterable[frozenset[Operation]]) -> int:
    """How many of the regions can stand beside one another: lowerings of one op are one place."""
    taken: set[Operation] = set()
    found = 0
    for region in sorted(regions, key=len):
        if taken.isdisjoint(region):
            taken |= region
            found += 1
    return found
