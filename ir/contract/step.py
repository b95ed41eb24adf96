"""What programs read of every step: one fixed set of inputs, and what comes. Knows no scheduler."""

from __future__ import annotations

from typing import Literal

import msgspec

from lostwax.ir.contract.program import HEADS, Bucket, Const, Segment

TRASH_PAGE = 0
"""Page that rows without a token write to; the allocator never hands it out."""


MAX_DRAFTS = 3
"""A fourth token no longer pays: its experts cost more bytes than its acceptance saves."""


class InputSpec(msgspec.Struct, frozen=True):
    """Shape (in T, B, `B + 1`, P, R, 1 and numbers), dtype and padding of one step input."""

    dims: tuple[str | int, ...]
    dtype: str
    padding: int


STEP_INPUTS: dict[str, InputSpec] = {
    "tokens": InputSpec(("T",), "i32", -1),
    "positions": InputSpec(("T",), "i32", -1),
    "slots": InputSpec(("T",), "i32", TRASH_PAGE),
    "q_starts": InputSpec(("B + 1",), "i32", -1),  # padded with the last start (see below)
    "kv_lens": InputSpec(("B",), "i32", 0),
    "page_table": InputSpec(("B", "P"), "i32", TRASH_PAGE),
    "logit_rows": InputSpec(("R",), "i32", -1),
    "temperature": InputSpec(("R",), "f32", 0),
    "seeds": InputSpec(("R",), "i32", 0),
    "counters": InputSpec(("R",), "i32", 0),
    "targets": InputSpec(("R",), "i32", -1),
    "top_k": InputSpec(("R",), "i32", 0),
    "top_p": InputSpec(("R",), "f32", 1),
    "min_p": InputSpec(("R",), "f32", 0),
    "count_rows": InputSpec(("R",), "i32", -1),
    "recent": InputSpec(("R", MAX_DRAFTS), "i32", -1),
    "repetition": InputSpec(("R",), "f32", 1),
    "frequency": InputSpec(("R",), "f32", 0),
    "presence": InputSpec(("R",), "f32", 0),
    "bias_rows": InputSpec(("R",), "i32", -1),
    "mask_rows": InputSpec(("R",), "i32", -1),
    "hidden_rows": InputSpec(("T",), "i32", -1),
    "num_rows": InputSpec(("1",), "i32", 0),
}
"""The step's inputs.

Rows are flat over requests: request b owns rows q_starts[b] .. q_starts[b+1]-1 and sees cached
positions 0 .. positions[row] of its own pages: position s lies in slot
page_table[b, s // page_tokens] * page_tokens + s % page_tokens. logit_rows are row numbers whose
logits are wanted (-1: padding); temperature 0 means greedy; seeds and counters feed the sampler's
counter-based random numbers; targets are token ids whose log-probability is wanted (-1: none);
top_k is how many of the likeliest ids a row's token is sampled from (0: all), top_p the mass of the
nucleus of these (1: all), min_p the least share of the likeliest's probability (0: all);
count_rows are the rows of the state `COUNTS` (`ir/contract/counts.py`) whose tokens change a row's
logits by the penalties repetition (1: none), frequency and presence (0: none), -1 where none do,
and recent are drafts before the row, which count as outputs, too (-1: none); bias_rows
are the rows of the state `BIASES` (`ir/contract/biases.py`) that are added to a row's logits (-1:
nothing), mask_rows those of the state `MASKS` (`ir/contract/masks.py`) that say which ids a row may
pick (-1: all ids): the head `pick` looks at none of them. A row of page_table has all pages of its
request that the bucket has room for, then the trash page. hidden_rows are the rows of the hidden
state that a draft step's rows continue (-1: padding). num_rows counts the real rows: of T in a
body, of R in a head.

Real rows come first. A row without a token (padding) has token and position -1, slot 0 (trash page)
and belongs to no request: padded q_starts repeat the last real one, padded kv_lens are 0. It writes
to no page but the trash page and reaches no expert: its ids are -1. What else such a row holds is
undefined, in every value and in the results, and no real row may depend on it. Neither may one
depend on the trash page, nor on what a page holds behind its request's length. Only a selection is
bounded: positions within the page table, or -1. A kernel may leave at once for what lies behind
num_rows, once it has written these ids and selections.
"""

DRAFT_INPUTS = ("hidden_rows",)
"""Inputs that only draft bodies read."""

LAUNCH_INPUTS = ("num_rows",)
"""Inputs that no op reads: launches get them by `Match.step_input` or `Lowering.prepare`."""

HEAD_INPUTS = (
    "logit_rows", "temperature", "seeds", "counters", "top_k", "top_p", "min_p", "count_rows",
    "recent", "repetition", "frequency", "presence", "bias_rows", "mask_rows", "targets",
)  # fmt: skip
"""Inputs that only heads read, row by row of what they are asked for."""


def inputs_of(segment: Segment) -> tuple[str, ...]:
    """What a segment's launches may read, in the order in which it is packed."""
    return (*operands_of(segment), *LAUNCH_INPUTS)


def operands_of(segment: Segment) -> tuple[str, ...]:
    """What a segment's ops may read: the arguments of its function."""
    if segment in HEADS:
        return HEAD_INPUTS
    left_out = HEAD_INPUTS if segment == "draft" else (*HEAD_INPUTS, *DRAFT_INPUTS)
    left_out = (*left_out, *LAUNCH_INPUTS)
    return tuple(name for name in STEP_INPUTS if name not in left_out)


HIDDEN = "hidden"
"""The state that outlives a body: hiddens behind the final norm, row by row as the last body had
them. Extend and decode bodies write it for heads and drafts; draft bodies read it, and write it
anew for their own head."""


def input_shape(name: str, bucket: Bucket) -> tuple[int, ...]:
    """The concrete shape of a step input under a bucket."""
    sizes = {
        "T": bucket.tokens, "B": bucket.reqs, "B + 1": bucket.reqs + 1,
        "P": bucket.pages, "R": bucket.rows, "1": 1,
    }  # fmt: skip
    return tuple(d if isinstance(d, int) else sizes[d] for d in STEP_INPUTS[name].dims)


class StepOp(msgspec.Struct, frozen=True, kw_only=True):
    """Per-step metadata that a lowering wants computed once a step and shared by all layers.

    Equal StepOps are computed once. `function` is `module:name` of a `kernels` package, called as
    `function(*inputs, *outputs, **consts)`; inputs are names of step inputs. Dims of `outputs` are
    concrete. Placement: `host` may read inputs on the host, `device` is capturable. `allocates` is
    the upper bound in bytes of what the function allocates outside the arena. `us` is microseconds
    once a step as they were timed; None leaves them to an estimate.
    """

    function: str
    inputs: tuple[str, ...]
    outputs: tuple[tuple[str, str, tuple[int, ...]], ...]  # (name, dtype, shape)
    consts: dict[str, Const] = {}
    placement: Literal["host", "device", "patch"] = "device"
    allocates: int = 0
    us: float | None = None


MAX_RANKED = 20
"""Ids of a logit row that the head with scores ranks: what the OpenAI interface allows at most."""


class StepResult(msgspec.Struct, kw_only=True):
    """What a step gives, one entry a logit row. Only the head `score` fills score fields. `drafts`
    has an entry a sequence that picked: the drafts that follow, -1 where one is missing."""

    ids: list[int] = []
    logprobs: list[float] = []
    target_logprobs: list[float] = []
    top_ids: list[list[int]] = []
    top_logprobs: list[list[float]] = []
    drafts: list[list[int]] = []
    program: str = ""
    head: str = ""
    """Names of the body's and the head's program, this empty without logit rows."""
