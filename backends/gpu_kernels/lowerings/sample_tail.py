"""The whole tail of a sampling head in three launches. Knows no device.

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
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match
from lostwax.backends.predicates import axis_at_most, fact, of_rows
from lostwax.ir.contract.masks import mask_words
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.region import Node, Region

_KERNELS = "lostwax.backends.gpu_kernels.sample_tail"
_NAME = "smxx_sample_tail"
_MAX_VOCAB = 1 << 18  # a program holds a number of each part of its row in registers
_PENALTIES = ("counts", "count_rows", "recent", "repetition", "frequency", "presence")
_ROWS = ("masks", "mask_rows", "temperature")
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
        "tops": carver.take("f32", *size),
        "sums": carver.take("i64", *size),
        "allowed_tops": carver.take("f32", *size),
        "masses": carver.take("i64", *size, 2),
        "biased": carver.take("f32", rows, vocab),
    }
    return views, carver.num_bytes


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    rows, vocab = match.shape("logits")
    parts = -(-vocab // _PART)
    left, _ = _scratch(match, match.workspace)
    names = (
        "logits",
        *_PENALTIES,
        "biases",
        "bias_rows",
        *_ROWS,
        "top_k",
        "top_p",
        "min_p",
        "seeds",
        "counters",
    )
    given = {name: match.view(name) for name in names}
    rest = {
        "real_rows": real_rows(match),
        "logits_stride": i32(given["logits"].strides[0]),
        "parts": i32(parts),
    }
    results = {"ids": match.view("picked.ids"), "logprobs": match.view("logprob")}
    constants = {
        "WIDTH": vocab,
        "WORDS": mask_words(vocab),
        "BLOCK": _PART,
        "BLOCK_PARTS": next_power_of_two(parts),
        "MASS_BITS": 62 - (vocab - 1).bit_length(),  # a row's masses sum to 2^62 at most
        "RECENT": match.shape("recent")[1],
    }

    def launch(kernel: str, inputs: str, scratch: str, programs: int, *names: str) -> Launch:
        is_first = kernel == "sample_split"
        bias = ("biased", "bias_rows", "count_rows")
        if is_first:
            bias = (*_PENALTIES, "biases", "bias_rows", "biased")
        known = given | {"biased": left["biased"]}
        arguments = {name: known[name] for name in ("logits", *bias, *_ROWS, *inputs.split())}
        arguments |= {name: left[name] for name in scratch.split()}
        arguments |= {name: results[name] for name in names}
        unused = {"BLOCK_PARTS"} if is_first else {"RECENT"}
        fixed = {name: value for name, value in constants.items() if name not in unused}
        return triton_launch(
            match,
            f"{_KERNELS}:{kernel}",
            arguments | rest,
            fixed,
            grid=(rows, programs, 1),
            op=_NAME,
            num_warps=knobs["num_warps"],
            rows_of=("logits_stride",),
        )

    every = "scores best tops sums allowed_tops"
    return (
        launch("sample_split", "seeds counters", every, parts),
        launch("sample_weigh", "top_p", "scores best allowed_tops masses", parts),
        launch(
            "sample_pick", "top_k top_p min_p seeds counters", f"{every} masses", 1,
            "ids", "logprobs",
        ),
    )  # fmt: skip


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
    work=lambda match, knobs: replace(match.work(), launches=3),
)
