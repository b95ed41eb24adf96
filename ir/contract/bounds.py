"""Bounds of numbers and names in files, as field types: decoding checks them, and names the field.

They are generous: what lies beyond them is no model that exists. Knows no structure.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

MAX_BYTES = 1 << 50
MAX_EXTENT = 1 << 40
MAX_DIMS = 8

Bytes = Annotated[int, msgspec.Meta(ge=0, le=MAX_BYTES)]
"""A size or an offset of memory."""

Extent = Annotated[int, msgspec.Meta(ge=0, le=MAX_EXTENT)]
"""Elements of an axis, or from one to the next."""

Shape = Annotated[tuple[Extent, ...], msgspec.Meta(max_length=MAX_DIMS)]
"""Extents of a whole array."""

OpenShape = Annotated[
    tuple[Annotated[int, msgspec.Meta(ge=-1, le=MAX_EXTENT)], ...],
    msgspec.Meta(max_length=MAX_DIMS),
]
"""Extents of a view, where -1 stands for as many pages as there are."""

BlockExtent = Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]
"""Rows or columns under one scale: whole rows of a weight, where a row has one (V3.2's longest have
18,432)."""

Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
"""How many there are of something that there is at least one of."""

Some = Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
"""How many there are of something that there may be none of."""

Few = Annotated[int, msgspec.Meta(ge=0, le=1 << 16)]
"""How many there may be of something, or none."""

Rate = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
"""How fast a device is, or how long something takes, in a unit that makes it a handy number."""

# Control characters, and those that have no width or turn the direction of writing.
_UNSEEN = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202f\u205f-\u206f\ufeff\ufff9-\ufffb"
)

Word = Annotated[str, msgspec.Meta(max_length=200, pattern=rf"\A[^{_UNSEEN}]*\Z")]
"""A name that messages and logs repeat: one line, all of it to be seen."""

Package = Annotated[
    str, msgspec.Meta(max_length=100, pattern=r"\A[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z")
]
"""The name of a distribution, as PEP 508 has it: it stands in a command to paste."""

Reason = Annotated[str, msgspec.Meta(max_length=2000)]
"""A sentence, whose reader makes it one clean line before it is shown."""

Seed = Annotated[int, msgspec.Meta(ge=0)]
"""Of random numbers: as large as the generator takes."""

FileName = Annotated[str, msgspec.Meta(max_length=200, pattern=r"\A[A-Za-z0-9_][A-Za-z0-9_.+-]*\Z")]
"""A file in a folder that is known: no path, nothing hidden."""

RelativePath = Annotated[
    str,
    msgspec.Meta(
        max_length=1000,
        pattern=rf"\A(?!/)(?!(?:.*/)?\.{{1,2}}(?:/|\Z))(?!.*//)[^{_UNSEEN}]*[^{_UNSEEN}/]\Z",
    ),
]
"""A file below a folder that is known: neither absolute nor through `.` or `..`."""
