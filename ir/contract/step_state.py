"""What a running request is to a step: a row of every field below. Knows no plan, no device.

A row is called a sequence (`seq`): 1 .. max_reqs; row 0 is what padding takes. `Enter` writes a
whole row, whatever it held, so that rows are never cleared. A plan then changes little of it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from lostwax.ir.contract.step import TRASH_PAGE

NO_SEQ = 0
"""The row that padding takes; no request gets it."""

Writer = Literal["enter", "plan"]


class StateField(msgspec.Struct, frozen=True):
    """One field: dtype, shape of a row (P is the most pages of a request), what row 0 and the end
    of a short list hold, and what writes it."""

    dtype: Literal["i32", "f32"]
    dims: tuple[Literal["P"], ...]
    padding: float
    writers: tuple[Writer, ...]


STEP_STATE: dict[str, StateField] = {
    "pages": StateField("i32", ("P",), TRASH_PAGE, ("enter", "plan")),
    "length": StateField("i32", (), 0, ("enter", "plan")),
    "limit": StateField("i32", (), 0, ("enter",)),
    "num_prompt": StateField("i32", (), 0, ("enter",)),
    "temperature": StateField("f32", (), 0, ("enter",)),
    "top_p": StateField("f32", (), 1, ("enter",)),
    "seed": StateField("i32", (), 0, ("enter",)),
}
"""The fields of a sequence.

pages: its cache pages in order, the trash page behind them. length: positions that its extend and
decode steps have written; rows may start there or before it (rejected drafts are written over),
never behind. limit: the first position that it may not have. num_prompt: outputs are counted from
here, so that a token's noise follows neither chunks nor drafts. temperature, top_p, seed: how its
outputs are picked.
"""


class Enter(msgspec.Struct, frozen=True, array_like=True):
    """A whole row: a request was admitted. Fields are those of STEP_STATE, and its row."""

    seq: int
    pages: tuple[int, ...]
    length: int
    limit: int
    num_prompt: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
