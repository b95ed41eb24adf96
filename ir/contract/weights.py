"""How weights are stored for a target: plans over checkpoint tensors. Holds no data, knows no torch."""

from __future__ import annotations

import msgspec


class Source(msgspec.Struct, frozen=True):
    """One checkpoint tensor: file (relative to the checkpoint), name, dtype and shape as stored.

    `scale` names the tensor of 128x128 block scales that multiply it, None for plain tensors.
    """

    file: str
    tensor: str
    dtype: str
    shape: tuple[int, ...]
    scale: str | None = None
    scale_file: str | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a weight form. Each has a numpy meaning in `ir/reference/weight_forms.py`.

    kind: `dequantise` (block scales multiplied in, result dtype), `cast` (dtype), `stack` (new
    axis 0 over the sources), `concat` (axis), `transpose` (perm).
    """

    kind: str
    dtype: str = ""
    axis: int = 0
    perm: tuple[int, ...] = ()


class WeightForm(msgspec.Struct, frozen=True, kw_only=True):
    """How a lowering wants a weight stored.

    `perm` permutes the logical axes in storage (empty: row-major). `concat_with` names the other
    weight operands of the same region that must lie behind one another along axis `axis`, in that
    order, as one tensor.
    """

    name: str
    perm: tuple[int, ...] = ()
    concat: tuple[str, ...] = ()
    axis: int = 0


ROW_MAJOR = WeightForm(name="row_major")


class StoredWeight(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor in the target's memory, for every layer of a block kind.

    `name` is the tensor's name in programs (relative to the call's prefix), `dtype` and `shape` as
    stored. `steps` apply to the sources in order.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    steps: tuple[Step, ...]
    parts: tuple[str, ...]
    """Logical weight names, relative to the prefix, in storage order."""


class BoundWeight(msgspec.Struct, frozen=True, kw_only=True):
    """A stored weight of one layer with the checkpoint tensors it is made from, in part order."""

    prefix: str
    stored: str
    block: str
    sources: tuple[tuple[Source, ...], ...]
