"""Scores in two launches over rows that are split over programs. Knows no device.

A row's log-probabilities have the bits of `smxx_pick` and `smxx_logprob`, and its scratch is a few
kilobytes for any vocabulary.
"""

from __future__ import annotations

from dataclasses import replace

from lostwax.backends.gpu_kernels.lowerings.launches import (
    Argument,
    Carver,
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.gpu_kernels.lowerings.row_lists import groups_of_part
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match
from lostwax.backends.predicates import axis_at_most, fact, of_rows
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.dialects.sample import ScoreOp
from lostwax.ir.region import Region

_KERNELS = "lostwax.backends.gpu_kernels.score"
_NAME = "smxx_score"
_MAX_VOCAB = 1 << 18  # an id takes 18 bits of what ids are ranked by
_LIST = 1024
"""Ids: as many as a program holds in registers at four a thread."""
_GROUPS = 512
_PART = 1024  # as in `sample.py`: log-probabilities are summed in such parts
_SPLIT = (
    *("logits", "targets", "tops", "sums", "groups", "arrived", "wholes", "floors"),
    *("progress", "target_logprobs", "real_rows"),
)
_RANK = (
    *("logits", "wholes", "floors", "progress", "listed", "top_ids", "top_logprobs"),
    "real_rows",
)
"""What each launch takes, in the order of its kernel."""


def _scratch(match: Match, workspace: View | None) -> tuple[dict[str, View], int]:
    """What the launches leave to each other, by name, and its bytes."""
    rows, vocab = match.shape("logits")
    size = (rows, -(-vocab // _PART))
    carver = Carver(workspace)
    views = {
        "tops": carver.take("f32", *size),
        "sums": carver.take("i64", *size),
        "groups": carver.take("f32", *size, groups_of_part(vocab, _PART, _GROUPS)),
        "wholes": carver.take("f64", rows, 2),
        "floors": carver.take("f32", rows),
        "progress": carver.take("i32", rows, 2),
        "listed": carver.take("i32", rows, _LIST),
    }
    return views, carver.num_bytes


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    rows, vocab = match.shape("logits")
    parts, top = -(-vocab // _PART), match.shape("op.top_ids")[1]
    known: dict[str, Argument] = {name: match.view(name) for name in ("logits", "targets")}
    known |= {
        name: match.view(f"op.{name}") for name in ("target_logprobs", "top_ids", "top_logprobs")
    }
    known |= _scratch(match, match.workspace)[0]
    known |= {"arrived": Carver(match.zeroed).take("i32", rows), "real_rows": real_rows(match)}
    stride = match.view("logits").strides[0]
    sizes: dict[str, Argument] = {"logits_stride": i32(stride), "parts": i32(parts)}
    constants = {
        "WIDTH": vocab,
        "BLOCK": _PART,
        "BLOCK_PARTS": next_power_of_two(parts),
        "OF_PART": groups_of_part(vocab, _PART, _GROUPS),
        "MASS_BITS": 62 - (vocab - 1).bit_length(),  # a row's masses sum to 2^62 at most
        "LIST": _LIST,
        "TOP": top,
        "SLOTS": next_power_of_two(top),
    }

    def launch(kernel: str, names: tuple[str, ...], *unused: str) -> Launch:
        return triton_launch(
            match,
            f"{_KERNELS}:{kernel}",
            {name: known[name] for name in names} | sizes,
            {name: value for name, value in constants.items() if name not in unused},
            grid=(rows, parts, 1),
            op=_NAME,
            num_warps=knobs["num_warps"],
            rows_of=("logits_stride",),
        )

    return (
        launch("score_split", _SPLIT, "LIST", "SLOTS"),
        launch("score_rank", _RANK, "BLOCK_PARTS", "OF_PART", "MASS_BITS"),
    )


SCORE = Lowering(
    name=_NAME,
    pattern=Region.single(ScoreOp),
    emit=_emit,
    when=fact("dtypes", "f64")
    & fact("dtypes", "i64")
    & axis_at_most("logits", 1, _MAX_VOCAB)
    & axis_at_most("op.top_ids", 1, 256)
    & of_rows("logits"),
    knobs=(Knob("num_warps", (4, 8, 16)),),
    row_invariant=True,
    workspace=lambda match, knobs: _scratch(match, None)[1],
    zeroed=lambda match, knobs: 4 * match.shape("logits")[0],
    work=lambda match, knobs: replace(match.work(), launches=2),
)
