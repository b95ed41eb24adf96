"""How weights are stored for a target: plans over checkpoint tensors. Holds no data."""

from __future__ import annotations

from typing import Literal

import msgspec

from lostwax.ir.contract.bounds import RelativePath, Shape, Word


class Source(msgspec.Struct, frozen=True):
    """One checkpoint tensor: file (relative to the checkpoint), name, dtype and shape as stored.

    `scale` names the tensor of 128x128 block scales that multiply it, None for plain tensors.
    """

    file: RelativePath
    tensor: Word
    dtype: Word
    shape: Shape
    scale: Word | None = None
    scale_file: RelativePath | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of making a stored weight, with a numpy meaning in `ir/reference/weight_forms.py`.

    Each part is first made from its sources: `stack` (new axis 0 over several sources),
    `dequantise` (block scales multiplied in), `reencode` (e4m3fn as e4m3fnuz, exactly: the same
    bits, which mean half, with doubled scales), `cast` to the stored dtype. Then, over the parts:
    `concat` (axis) and `transpose` (perm).
    """

    kind: Literal["dequantise", "reencode", "cast", "stack", "concat", "transpose"]
    dtype: str = ""
    axis: int = 0
    perm: tuple[int, ...] = ()


class WeightForm(msgspec.Struct, frozen=True, kw_only=True):
    """How a lowering wants a weight stored.

    `perm` permutes the logical axes in storage (empty: row-major). `concat` names the weight
    operands of the region (this one first) that must lie behind one another along `axis`.
    """

    name: str
    perm: tuple[int, ...] = ()
    concat: tuple[str, ...] = ()
    axis: int = 0


ROW_MAJOR = WeightForm(name="row_major")


class StoredWeight(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor in the target's memory, the same for every layer of a block kind.

    `name` is what programs' views call it (relative to the call's prefix), `dtype` and `shape` as
    stored. `parts` are logical weight names in storage order; each is read from its sources,
    stacked if there are several, and dequantised and cast to `dtype` where it is stored otherwise
    in the checkpoint. Then `steps` apply. `scale`: the block scales of the parts, not their values.

    `splits` says for each part (none at all: for no part) by which axis, counted from the last one
    as -1, the ranks split it: each keeps its slice, before `steps`. `shape` is one rank's.
    """

    name: Word
    dtype: Word
    shape: Shape
    steps: tuple[Step, ...]
    parts: tuple[Word, ...]
    scale: bool = False
    splits: tuple[int | None, ...] = ()


class WeightPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Contents of `weights.json`.

    `stored` gives the tensors to store by group (block kinds that share weights), `groups` the
    group of every prefix (`model.layers.3.`), `sources` the checkpoint tensors of a full logical
    name (`model.layers.3.mlp.experts.gate_proj.weight`) in stacking order.
    """

    stored: dict[Word, tuple[StoredWeight, ...]]
    groups: dict[Word, Word]
    sources: dict[Word, tuple[Source, ...]]
