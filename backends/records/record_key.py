"""Builds the key under which a candidate's records are filed. Reads no store, times nothing."""

from __future__ import annotations

from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.records.source_digest import source_digest
from lostwax.ir.contract.record import RecordKey
from lostwax.ir.contract.target import Target


def sku_of(target: Target) -> str:
    """The fingerprint of a target's devices: until drivers tell models apart, name and arch."""
    return f"{target.name}/{target.arch}"


def boundary_types(candidate: Candidate) -> dict[str, str]:
    """Types of what enters and leaves the region, by pattern name."""
    region = candidate.region
    found: dict[str, str] = {}
    for name in (*region.region.inputs, *region.region.outputs):
        bound = region.values[name]
        each = bound if isinstance(bound, tuple) else (bound,)
        found[name] = ", ".join(str(v.type) for v in each)
    return found


def bucket_class(candidate: Candidate) -> str:
    """Entry, sizes and guard: two programs of one class take the same time."""
    b = candidate.bucket
    sizes = f"t{b.tokens}-b{b.reqs}-p{b.pages}-r{b.rows}"
    return f"{candidate.segment}-{sizes} {candidate.guard}"


def record_key(candidate: Candidate) -> RecordKey:
    """Everything that changes the candidate's time, and nothing of this machine or checkout."""
    return RecordKey(
        region=candidate.region.digest(),
        lowering=candidate.name,
        source=source_digest(candidate),
        sku=sku_of(candidate.target),
        types=boundary_types(candidate),
        bucket_class=bucket_class(candidate),
    )
