"""The weights of a block function: how its module holds them, and how they are stored before."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.dialects import builtin, func

from lostwax.backends.plan.program_context import BlockFunction
from lostwax.ir.contract.scale_layout import ScaleLayout, StoredFormat, scale_shape
from lostwax.ir.contract.weights import WeightPart
from lostwax.ir.dialects.dist import MESH, SHARD, SplitAttr
from lostwax.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class WeightType:
    """One weight of a block kind: how the module holds it, and how the checkpoint stores it.

    `shape` is one rank's; `split` is the axis that `ranks` split, counted from the last one as -1.
    """

    shape: tuple[int, ...]
    dtype: str
    scale: ScaleLayout | None
    stored: StoredFormat
    split: int | None = None
    ranks: int = 1

    @property
    def scale_shape(self) -> tuple[int, ...] | None:
        """Shape of one rank's scales, None for plain values."""
        return None if self.scale is None else scale_shape(self.scale, self.shape)

    def part(self, name: str) -> WeightPart:
        """What the checkpoint has of it: whole tensors, one or one an entry of the first axis."""
        shape, count = list(self.shape), 1
        if self.split is not None:
            shape[self.split] *= self.ranks
        if self.stored.stacked:
            count = shape.pop(0)
        return WeightPart(
            name=name,
            dtype=self.stored.dtype,
            shape=tuple(shape),
            scale=self.stored.scale,
            count=count,
        )

    def held(self, name: str) -> WeightPart:
        """What the module has of it: one rank's, stacked."""
        return WeightPart(name=name, dtype=self.dtype, shape=self.shape, scale=self.scale)


def weight_types(function: func.FuncOp) -> dict[str, WeightType]:
    """The weights of a block function by logical name."""
    block = BlockFunction(function)
    found: dict[str, WeightType] = {}
    for argument in function.body.block.args:
        name = block.weight_name(argument)
        if name is None or not isinstance(argument.type, TensorType):
            continue
        shape, dtype = argument.type.at({}), argument.type.dtype_name
        scale = None if argument.type.block_scale is None else argument.type.block_scale.layout
        stored = block.stored_format(argument) or StoredFormat(dtype=dtype, scale=scale)
        split, ranks = _split_of(function, argument.index, len(shape))
        found[name] = WeightType(shape, dtype, scale, stored, split, ranks)
    return found


def _split_of(function: func.FuncOp, index: int, num_axes: int) -> tuple[int | None, int]:
    state = function.arg_attrs.data[index].data.get(SHARD) if function.arg_attrs else None
    if not isinstance(state, SplitAttr):
        return None, 1
    module = function.parent_op()
    mesh = module.attributes[MESH] if module else None
    ranks = mesh.data[state.over.data] if isinstance(mesh, builtin.DictionaryAttr) else None
    assert isinstance(ranks, builtin.IntegerAttr)  # `shard` has written both
    return state.axis.data - num_axes, ranks.value.data
