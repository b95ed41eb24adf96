"""Whether a weight plan can be carried out, as far as that shows without the checkpoint."""

from __future__ import annotations

from math import prod

from lostwax.ir.contract.check_views import Inconsistent, dtype_bytes, require
from lostwax.ir.contract.dtypes import packed_bytes
from lostwax.ir.contract.scale_layout import scale_shape
from lostwax.ir.contract.weight_types import check_form
from lostwax.ir.contract.weights import Source, StoredWeight, WeightPart, WeightPlan

WeightSizes = dict[str, dict[str, int]]
"""Bytes of each stored weight, by prefix and name."""


def check_weights(plan: WeightPlan, weight_bytes: int, ranks: int) -> None:
    """Raise Inconsistent where the plan contradicts itself or the manifest: its `weight_bytes`, or
    the `ranks` that it is for. The message names the weight.
    """
    for group, tensors in plan.stored.items():
        names = [tensor.name for tensor in tensors]
        require(len(set(names)) == len(names), f"group {group!r} stores one name twice")
        for tensor in tensors:
            check_stored(tensor, ranks)
    for prefix, group in plan.groups.items():
        require(
            group in plan.stored, f"prefix {prefix!r} is of group {group!r}, which is not there"
        )
    if plan.sources:  # a configuration alone has none
        for prefix, group in plan.groups.items():
            for tensor in plan.stored[group]:
                for part in tensor.parts:
                    _check_sources(prefix, part, plan)
    total = sum(sum(sizes.values()) for sizes in weight_sizes(plan).values())
    require(
        total == weight_bytes, f"the weights take {total} bytes, manifest.json says {weight_bytes}"
    )


def weight_sizes(plan: WeightPlan) -> WeightSizes:
    """Bytes of each stored weight of each prefix of a checked plan."""
    sizes = {
        group: {t.name: packed_bytes(t.dtype, prod(t.shape)) for t in tensors}
        for group, tensors in plan.stored.items()
    }
    return {prefix: sizes[group] for prefix, group in plan.groups.items()}


def check_stored(tensor: StoredWeight, ranks: int) -> None:
    """Raise Inconsistent, naming the weight, where its steps do not make what it says it is."""
    dtype_bytes(tensor.dtype, f"weight {tensor.name!r}")
    try:
        check_form(tensor, ranks)
    except Inconsistent as error:
        raise Inconsistent(f"weight {tensor.name!r}: {error}") from error


def _check_sources(prefix: str, part: WeightPart, plan: WeightPlan) -> None:
    name = prefix + part.name
    sources = plan.sources.get(name, ())
    require(bool(sources), f"{name!r} has no source")
    require(len(sources) == part.count, f"{name!r} has {len(sources)} sources, wants {part.count}")
    for source in sources:
        _check_source(name, source, part)


def _check_source(name: str, source: Source, part: WeightPart) -> None:
    if (source.dtype, source.shape) != (part.dtype, part.shape):
        raise Inconsistent(
            f"tensor {source.tensor!r} of {name!r} is {source.dtype} {list(source.shape)}, its"
            f" steps take {part.dtype} {list(part.shape)}"
        )
    scale = source.scale
    if part.scale is None or scale is None:
        require(
            part.scale is None and scale is None,
            f"tensor {source.tensor!r} of {name!r} has {'no ' if scale is None else ''}scales,"
            " unlike what its steps take",
        )
        return
    wanted = scale_shape(part.scale, part.shape)
    if (scale.dtype, scale.shape) != (part.scale.dtype, wanted):
        raise Inconsistent(
            f"scales {scale.tensor!r} of {name!r} are {scale.dtype} {list(scale.shape)}, its"
            f" steps take {part.scale.dtype} {list(wanted)}"
        )
