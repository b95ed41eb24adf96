"""What a running request is to a step: a row of every field below. Knows no plan, no device.

A row is called a sequence (`seq`): 1 .. max_reqs; row 0 is what padding takes. `Enter` writes a
whole row, whatever it held, so that rows are never cleared. A step then changes little of it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from lostwax.ir.contract.step import TRASH_PAGE

NO_SEQ = 0
"""The row that padding takes; no request gets it."""

NO_TOKEN = -1
"""Where a token would stand, and none does: a row with it writes nothing that anybody reads."""

Writer = Literal["enter", "plan", "step"]


class StateField(msgspec.Struct, frozen=True):
    """One field: dtype, shape of a row (P is the most pages of a request, D the tokens that follow:
    one more than there are drafts at most), what row 0 and the end of a short list hold, and what
    writes it: `Enter`, a later plan, or the step itself."""

    dtype: Literal["i32", "f32"]
    dims: tuple[Literal["P", "D"], ...]
    padding: float
    writers: tuple[Writer, ...]


STEP_STATE: dict[str, StateField] = {
    "pages": StateField("i32", ("P",), TRASH_PAGE, ("enter", "plan")),
    "length": StateField("i32", (), 0, ("enter", "step")),
    "limit": StateField("i32", (), 0, ("enter",)),
    "tokens": StateField("i32", ("D",), NO_TOKEN, ("enter", "step")),
    "num_prompt": StateField("i32", (), 0, ("enter",)),
    "temperature": StateField("f32", (), 0, ("enter",)),
    "top_k": StateField("i32", (), 0, ("enter",)),
    "top_p": StateField("f32", (), 1, ("enter",)),
    "min_p": StateField("f32", (), 0, ("enter",)),
    "seed": StateField("i32", (), 0, ("enter",)),
    "counted": StateField("i32", (), 0, ("enter",)),
    "repetition": StateField("f32", (), 1, ("enter",)),
    "frequency": StateField("f32", (), 0, ("enter",)),
    "presence": StateField("f32", (), 0, ("enter",)),
    "biased": StateField("i32", (), 0, ("enter",)),
    "min_outputs": StateField("i32", (), 0, ("enter",)),
}
"""The fields of a sequence.

pages: its cache pages in order, the trash page behind them. length: positions that are cached and
hold; the rows of a step start there. limit: the first position that it may not have. tokens: what
stands at position `length` and on, as far as it is known: the last output, then drafts. num_prompt:
outputs are counted from here, so that a token's noise follows neither chunks nor drafts.
temperature, top_k, top_p, min_p, seed: how its outputs are picked. counted: 1 where its tokens are
counted in its row of the state `COUNTS` (`ir/contract/counts.py`), by which the penalties
repetition, frequency and presence change its logits. biased: 1 where its rows of the
state `BIASES` (`ir/contract/biases.py`) are added to its logits. min_outputs: for so many outputs
this is the second of them.
"""


class Enter(msgspec.Struct, frozen=True, array_like=True):
    """A whole row: a request was admitted, or returns. Fields are those of STEP_STATE, and its row.

    `tokens` are empty where the first step brings its rows' tokens. `bias` is what is added to the
    logits of some ids, each once; `ends` are ids that may not be among its first `min_outputs`.
    Where penalties count its tokens, `prompt` and `outputs` are those so far, the last one
    included; only `repetition` asks for the prompt.
    """

    seq: int
    pages: tuple[int, ...]
    length: int
    limit: int
    num_prompt: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    tokens: tuple[int, ...] = ()
    bias: tuple[tuple[int, float], ...] = ()
    ends: tuple[int, ...] = ()
    min_outputs: int = 0
    repetition: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0
    prompt: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()

    @property
    def counted(self) -> int:
        """1 where its tokens change its logits, 0 where they do not."""
        return int(self.repetition != 1 or bool(self.frequency or self.presence))

    @property
    def biased(self) -> int:
        """1 where something is added to its logits, 0 where nothing is."""
        return int(bool(self.bias or self.ends))
