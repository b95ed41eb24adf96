"""The whole tail of a sampling head in two launches. Knows no device.

Ids and log-probabilities have the bits that the lowerings of `sample.py` give at their first
knobs, so that a row's answer depends neither on its head nor on the lowering that was cheaper.
"""

from __future__ import annotations

from dataclasses import replace

from lostwax.backends.gpu_kernels.lowerings.launches import (
    Carver,
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.gpu_kernels.lowerings.row_lists import groups_of_part
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match
from lostwax.backends.predicates import axis_at_most, fact, of_rows
from lostwax.ir.contract.masks import mask_words
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.region import Node, Region

_KERNELS = "lostwax.backends.gpu_kernels.sample_tail"
_NAME = "smxx_sample_tail"
_MAX_VOCAB = 1 << 18  # a program holds a number of each part of its row in registers
_PENALTIES = ("counts", "count_rows", "recent", "repetition", "frequency", "presence")
_MASKS = ("masks", "mask_rows")
_ROWS = ("temperature", "top_k", "top_p", "min_p", "seeds", "counters")
_GIVEN = ("logits", *_PENALTIES, "biases", "bias_rows", *_MASKS, *_ROWS)
_RESULTS = ("ids", "logprobs", "real_rows")
_SPLIT = (
    *("logits", *_PENALTIES, "biases", "bias_rows", "biased", *_MASKS, *_ROWS),
    *("scores", "best", "runner_ups", "runner_up_ids", "tops", "sums", "allowed_tops", "groups"),
    *("arrived", "chosen", "ends", "progress", *_RESULTS),
)
_WEIGH = (
    *("logits", "biased", "bias_rows", "count_rows", *_MASKS, *_ROWS),
    *(
        "scores",
        "best",
        "tops",
        "sums",
        "allowed_tops",
        "chosen",
        "ends",
        "progress",
        "weights",
        "listed",
    ),
    *_RESULTS,
)
"""What each launch takes, in the order of its kernel."""
_LIST = 2048
"""Ids: as many as a program holds in registers at eight a thread."""
_GROUPS = 2048
_WALKED_SOON = 1 << 14
"""Ids of a row that is walked, or listed, in less time than a second pick takes from every row."""
_PART = 1024  # of the first knobs in `sample.py`: log-probabilities are summed in such parts

SAMPLE_REGION = Region(
    {
        "penalised": Node(
            "sample.penalise", {"logits": "logits"} | {name: name for name in _PENALTIES}
        ),
        "biased": Node(
            "sample.bias", {"logits": "penalised", "biases": "biases", "bias_rows": "bias_rows"}
        ),
        "masked": Node(
            "sample.mask", {"logits": "biased", "masks": "masks", "mask_rows": "mask_rows"}
        ),
        "nucleus": Node(
            "sample.nucleus",
            {
                "logits": "masked",
                "temperature": "temperature",
                "top_k": "top_k",
                "top_p": "top_p",
                "min_p": "min_p",
            },
        ),
        "picked": Node(
            "sample.pick",
            {
                "logits": "nucleus",
                "temperature": "temperature",
                "seeds": "seeds",
                "counters": "counters",
            },
        ),
        "logprob": Node("sample.logprob", {"logits": "logits", "targets": "picked.ids"}),
    },
    outputs=("picked.ids", "logprob"),
)
"""What `SampleHead.sampled` does; log-probabilities of the nucleus's own are read by nobody."""


def _scratch(match: Match, workspace: View | None) -> tuple[dict[str, View], int]:
    """What the launches leave to each other, by name, and its bytes."""
    rows, vocab = match.shape("logits")
    size = (rows, -(-vocab // _PART))
    carver = Carver(workspace)
    views = {
        "scores": carver.take("f64", *size),
        "best": carver.take("i32", *size),
        "runner_ups": carver.take("f64", *size),
        "runner_up_ids": carver.take("i32", *size),
        "tops": carver.take("f32", *size),
        "sums": carver.take("i64", *size),
        "allowed_tops": carver.take("f32", *size),
        "groups": carver.take("f32", *size, groups_of_part(vocab, _PART, _GROUPS)),
        "chosen": carver.take("i32", rows, 2),
        "ends": carver.take("f32", rows, 2),
        "progress": carver.take("i32", rows, 2),
        "weights": carver.take("i64", *size, 4),
        "listed": carver.take("i32", rows, _LIST),
        "biased": carver.take("f32", rows, vocab),
    }
    return views, carver.num_bytes


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    rows, vocab = match.shape("logits")
    parts = -(-vocab // _PART)
    left, _ = _scratch(match, match.workspace)
    known = {name: match.view(name) for name in _GIVEN} | left
    known |= {
        "real_rows": real_rows(match),
        "arrived": Carver(match.zeroed).take("i32", rows),
        "ids": match.view("picked.ids"),
        "logprobs": match.view("logprob"),
    }
    sizes = {"logits_stride": i32(known["logits"].strides[0]), "parts": i32(parts)}
    constants = {
        "WIDTH": vocab,
        "WORDS": mask_words(vocab),
        "BLOCK": _PART,
        "BLOCK_PARTS": next_power_of_two(parts),
        "OF_PART": groups_of_part(vocab, _PART, _GROUPS),
        "LIST": _LIST,
        "MASS_BITS": 62 - (vocab - 1).bit_length(),  # a row's masses sum to 2^62 at most
        "TRIES_TWICE": int(vocab > _WALKED_SOON),
        "RECENT": match.shape("recent")[1],
    }

    def launch(kernel: str, names: tuple[str, ...], unused: tuple[str, ...] = ()) -> Launch:
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
        launch("sample_split", _SPLIT, unused=("LIST",)),
        launch("sample_weigh", _WEIGH, unused=("OF_PART", "TRIES_TWICE", "RECENT")),
    )


SAMPLE_TAIL = Lowering(
    name=_NAME,
    pattern=SAMPLE_REGION,
    emit=_emit,
    when=fact("dtypes", "f64")
    & fact("dtypes", "i64")
    & axis_at_most("logits", 1, _MAX_VOCAB)
    & of_rows("logits"),
    knobs=(Knob("num_warps", (8, 4, 16)),),
    row_invariant=True,
    workspace=lambda match, knobs: _scratch(match, None)[1],
    zeroed=lambda match, knobs: 4 * match.shape("logits")[0],
    work=lambda match, knobs: replace(match.work(), launches=2),
)
