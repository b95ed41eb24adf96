"""Builds the key under which a candidate's records are filed. Reads no store, times nothing."""

from __future__ import annotations

from xdsl.ir import Attribute

from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.records.source_digest import code_behind
from lostwax.backends.runtime.require_packages import installed_version
from lostwax.ir.contract.record import RecordKey
from lostwax.ir.types import CacheType, TensorType


def boundary_types(candidate: Candidate) -> dict[str, str]:
    """Types of what enters and leaves the region, by pattern name."""
    return {name: ", ".join(map(str, types)) for name, types in _boundary(candidate).items()}


def boundary_values(candidate: Candidate) -> dict[str, str]:
    """Dtype, concrete shape, scales and layout of each boundary value, by pattern name.

    A cache has as many pages as the server gives it: its rows and its layout count.
    """
    env = candidate.context.env
    return {
        name: ", ".join(concrete(kind, env) for kind in types)
        for name, types in _boundary(candidate).items()
    }


def cache_use(candidate: Candidate) -> str:
    """Pages of the longest request and the guard where a cache is an operand, else nothing.

    Nothing else takes longer for it: a product has one key for all page buckets and guards.
    """
    kinds = (kind for types in _boundary(candidate).values() for kind in types)
    if not any(isinstance(kind, CacheType) for kind in kinds):
        return ""
    return f"{candidate.bucket.pages} pages, {candidate.guard}"


def record_key(candidate: Candidate, sku: str) -> RecordKey:
    """Everything that changes the candidate's time, and nothing of this machine's paths or clock.

    `sku` is the model of device that measures, or that the artifact is compiled for.
    """
    code = code_behind(candidate)
    # Compiling needs no package: one that is missing has no version, and so meets no record.
    libraries = {name: installed_version(name) or "" for name in code.libraries}
    assert candidate.lowering is not None  # views have no key
    libraries |= candidate.lowering.installed(code.host_functions)
    return RecordKey(
        region=candidate.region.digest(),
        lowering=candidate.name,
        source=code.digest,
        sku=sku,
        libraries=libraries,
        values=boundary_values(candidate),
        cache=cache_use(candidate),
    )


def _boundary(candidate: Candidate) -> dict[str, tuple[Attribute, ...]]:
    region = candidate.region
    found: dict[str, tuple[Attribute, ...]] = {}
    for name in (*region.region.inputs, *region.region.outputs):
        bound = region.values[name]
        found[name] = tuple(v.type for v in (bound if isinstance(bound, tuple) else (bound,)))
    return found


def concrete(kind: Attribute, env: dict[str, int]) -> str:
    """What a value of this type is in a program whose symbols are `env`; TypeError for no tensor
    and no cache."""
    if isinstance(kind, CacheType):
        return f"{kind.layout.data} rows {list(kind.row)}, {kind.page_tokens.data} a page"
    if not isinstance(kind, TensorType):
        raise TypeError(f"a boundary value of type {kind} has no key")
    scale = f" {kind.block_scale}" if kind.block_scale is not None else ""
    return f"{kind.dtype_name} {list(kind.at(env))}{scale}"
