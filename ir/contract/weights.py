"""How weights are stored for a target: plans over checkpoint tensors. Holds no data.

What each step does to dtype and shape is `weight_types.py`, to numbers
`ir/reference/weight_forms.py`; the loader does the same on torch and nothing that no step says.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from lostwax.ir.contract.bounds import MAX_DIMS, Count, RelativePath, Shape, Word
from lostwax.ir.contract.scale_layout import ScaleLayout

Axis = Annotated[int, msgspec.Meta(ge=-MAX_DIMS, lt=MAX_DIMS)]
Axes = Annotated[
    tuple[Annotated[int, msgspec.Meta(ge=0, lt=MAX_DIMS)], ...],
    msgspec.Meta(max_length=MAX_DIMS),
]
Tiles = Annotated[
    tuple[Annotated[int, msgspec.Meta(ge=1, le=1 << 16)], ...], msgspec.Meta(max_length=MAX_DIMS)
]


class StoredTensor(msgspec.Struct, frozen=True):
    """One tensor of a checkpoint: file (relative to its folder), name, dtype and shape there."""

    file: RelativePath
    tensor: Word
    dtype: Word
    shape: Shape


class Source(StoredTensor, frozen=True):
    """A tensor of weights, with the tensor of scales that multiply it, None for plain values."""

    scale: StoredTensor | None = None


class Select(msgspec.Struct, frozen=True, tag="select"):
    """Of scaled values, the values alone or the scales alone. The other steps but `split`,
    `dequantise` and `reencode` take plain numbers.
    """

    of: Literal["values", "scales"]


class Split(msgspec.Struct, frozen=True, tag="split"):
    """The rank's share of an axis, which is counted from the last one as -1.

    Of scaled values, with the scales of the blocks that they lie in: a share is of whole blocks,
    or lies in one.
    """

    axis: Axis


class Cast(msgspec.Struct, frozen=True, tag="cast"):
    """Each number rounded to another dtype, to nearest even."""

    dtype: Word


class Dequantise(msgspec.Struct, frozen=True, tag="dequantise"):
    """Each value times its scale in f32, rounded to `dtype`: scaled values become plain."""

    dtype: Word


class Requantise(msgspec.Struct, frozen=True, tag="requantise"):
    """Plain numbers become values in `dtype` with scales, so that the largest of those under one
    scale becomes the dtype's largest. Scales of exponents are rounded up; those of si8 to bf16, so
    that operators which take their scales in bf16 lose nothing.
    """

    dtype: Word
    scale: ScaleLayout


class Reencode(msgspec.Struct, frozen=True, tag="reencode"):
    """Scaled e4m3fn as e4m3fnuz, exactly: the same bits, which mean half, and scales doubled, in
    f32.
    """


class Stack(msgspec.Struct, frozen=True, tag="stack"):
    """A part's sources behind one another along a new axis 0."""


class Transpose(msgspec.Struct, frozen=True, tag="transpose"):
    """Axes permuted: axis i of the result is axis `perm[i]`."""

    perm: Axes


class Pad(msgspec.Struct, frozen=True, tag="pad"):
    """Zeros behind each axis, up to the next multiple of its number."""

    multiples: Tiles


class Tile(msgspec.Struct, frozen=True, tag="tile"):
    """The last axes cut into tiles, each of which lies whole: [..., N, K] by (n, k) becomes
    [..., N/n, K/k, n, k].
    """

    tile: Tiles


class Concat(msgspec.Struct, frozen=True, tag="concat"):
    """The parts behind one another along an axis: the last step of a weight of several parts."""

    axis: Axis


Step = (
    Select | Split | Cast | Dequantise | Requantise | Reencode | Stack | Transpose | Pad | Tile
    | Concat
)  # fmt: skip


Steps = Annotated[tuple[Step, ...], msgspec.Meta(max_length=16)]
"""More than any form takes."""


class Quantised(msgspec.Struct, frozen=True, kw_only=True):
    """A format that a lowering wants a weight rounded to."""

    dtype: Word
    scale: ScaleLayout

    def __str__(self) -> str:
        return f"{self.dtype} {self.scale}".replace(" ", "_")


class WeightForm(msgspec.Struct, frozen=True, kw_only=True):
    """How a lowering wants a weight stored.

    `quantised` rounds it anew. `perm` permutes the logical axes in storage (empty: row-major),
    `pad` fills each axis there up to a multiple, `tile` cuts the last axes there into tiles.
    `concat` names the weight operands of the region (this one first) that must lie behind one
    another along the logical `axis`, each padded by itself. Scales are permuted, padded and joined
    with their values, never tiled.
    """

    name: str
    perm: tuple[int, ...] = ()
    concat: tuple[str, ...] = ()
    axis: int = 0
    pad: tuple[int, ...] = ()
    tile: tuple[int, ...] = ()
    quantised: Quantised | None = None


ROW_MAJOR = WeightForm(name="row_major")


class WeightPart(msgspec.Struct, frozen=True, kw_only=True):
    """A logical weight that a stored one is made of: `count` tensors of one dtype and shape, whole
    and as the checkpoint has them, with scales laid out as `scale` says.
    """

    name: Word
    dtype: Word
    shape: Shape
    scale: ScaleLayout | None = None
    count: Count = 1


class StoredWeight(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor in the target's memory, the same for every layer of a block kind.

    `name` is what programs' views call it (relative to the call's prefix), `dtype` and `shape` are
    what the steps make of the parts: each step is taken with every source of every part, `stack`
    joins a part's sources, `concat` the parts. `shape` is one rank's.
    """

    name: Word
    dtype: Word
    shape: Shape
    parts: tuple[WeightPart, ...]
    steps: Steps = ()

    @property
    def is_scale(self) -> bool:
        """Whether it holds the scales of its parts, not their values."""
        return Select("scales") in self.steps


class WeightPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of `weights.json`.

    `stored` gives the tensors to store by group (block kinds that share weights), `groups` the
    group of every prefix (`model.layers.3.`), `sources` the checkpoint tensors of a full logical
    name (`model.layers.3.mlp.experts.gate_proj.weight`) in stacking order.
    """

    stored: dict[Word, tuple[StoredWeight, ...]]
    groups: dict[Word, Word]
    sources: dict[Word, tuple[Source, ...]]
