"""Whether a weight plan can be carried out, as far as that shows without the checkpoint."""

from __future__ import annotations

from math import prod

from lostwax.ir.contract.check_views import dtype_bytes, require
from lostwax.ir.contract.program import DTYPE_BYTES
from lostwax.ir.contract.weights import Source, StoredWeight, WeightPlan

WeightSizes = dict[str, dict[str, int]]
"""Bytes of each stored weight, by prefix and name."""


def check_weights(plan: WeightPlan, weight_bytes: int) -> None:
    """Raise Inconsistent where the plan contradicts itself or the manifest's `weight_bytes`."""
    for group, tensors in plan.stored.items():
        names = [tensor.name for tensor in tensors]
        require(len(set(names)) == len(names), f"group {group!r} stores one name twice")
        for tensor in tensors:
            _check_stored(tensor)
    for prefix, group in plan.groups.items():
        require(
            group in plan.stored, f"prefix {prefix!r} is of group {group!r}, which is not there"
        )
    if plan.sources:  # a configuration alone has none
        parts = {
            prefix + part
            for prefix, group in plan.groups.items()
            for tensor in plan.stored[group]
            for part in tensor.parts
        }
        missing = sorted(parts - plan.sources.keys())
        require(not missing, f"{missing[:1]} has no source")
    for name, sources in plan.sources.items():
        require(bool(sources), f"{name!r} has no source")
        for source in sources:
            _check_source(source)
    total = sum(sum(sizes.values()) for sizes in weight_sizes(plan).values())
    require(
        total == weight_bytes, f"the weights take {total} bytes, manifest.json says {weight_bytes}"
    )


def weight_sizes(plan: WeightPlan) -> WeightSizes:
    """Bytes of each stored weight of each prefix of a checked plan."""
    sizes = {
        group: {t.name: prod(t.shape) * DTYPE_BYTES[t.dtype] for t in tensors}
        for group, tensors in plan.stored.items()
    }
    return {prefix: sizes[group] for prefix, group in plan.groups.items()}


def _check_stored(tensor: StoredWeight) -> None:
    what, axes = f"weight {tensor.name!r}", len(tensor.shape)
    dtype_bytes(tensor.dtype, what)
    require(bool(tensor.parts), f"{what} has no part")
    require(
        len(tensor.splits) in (0, len(tensor.parts)),
        f"{what} has {len(tensor.splits)} splits of {len(tensor.parts)} parts",
    )
    wrong = [s for s in tensor.splits if s is not None and not -axes <= s < 0]
    require(not wrong, f"{what} is split along axis {wrong[:1]} of {axes}")
    for step in tensor.steps:
        if step.kind == "transpose":
            require(
                sorted(step.perm) == list(range(axes)),
                f"{what} is transposed by {step.perm[:8]}, which permutes no {axes} axes",
            )
        if step.kind == "concat":
            require(-axes <= step.axis < axes, f"{what} is joined along axis {step.axis} of {axes}")


def _check_source(source: Source) -> None:
    what = f"tensor {source.tensor!r}"
    dtype_bytes(source.dtype, what)
    require(
        source.scale is None or len(source.shape) >= 2,
        f"{what} has block scales and {len(source.shape)} axes",
    )
