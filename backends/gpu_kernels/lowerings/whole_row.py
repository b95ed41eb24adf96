"""The whole tail of a sampling head in one launch: a program a row. Knows no device.

Ids and log-probabilities have the bits that the lowerings of `sample.py` give at their first
knobs, so that a row's answer depends neither on its head nor on the lowering that was cheaper.
"""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings.launches import i32, next_power_of_two, triton_launch
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match
from lostwax.backends.predicates import axis_at_most, fact
from lostwax.ir.contract.masks import mask_words
from lostwax.ir.contract.program import Launch
from lostwax.ir.region import Node, Region

_KERNELS = "lostwax.backends.gpu_kernels.whole_row"
# A program holds a row with its masses in registers. At 4,096 ids it took 26 us, the three
# lowerings that split rows 45; at 16,160 it took 73 and they 47 (H200, 2026-11-29, `python
# benchmarks/gpu_kernels.py run DIR --only vocab`). A pick alone in one launch took 12 and 31 us,
# `smxx_pick` 6 and 7.
_MAX_VOCAB = 8192
_INPUTS = ("logits", "masks", "mask_rows", "temperature", "top_p", "seeds", "counters")
_PART = 1024  # of the first knobs in `sample.py`: log-probabilities are summed in such parts

SAMPLE_REGION = Region(
    {
        "masked": Node(
            "sample.mask", {"logits": "logits", "masks": "masks", "mask_rows": "mask_rows"}
        ),
        "nucleus": Node(
            "sample.nucleus",
            {"logits": "masked", "temperature": "temperature", "top_p": "top_p"},
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


def _num_warps(vocab: int, knobs: Knobs) -> int:
    """By the row's width unless the knob says otherwise: up to 32 ids a thread."""
    return knobs["num_warps"] or max(4, min(16, next_power_of_two(vocab) // 512))


def _emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    rows, vocab = match.shape("logits")
    return (
        triton_launch(
            match,
            f"{_KERNELS}:sample_row",
            {
                **{name: match.view(name) for name in _INPUTS},
                "ids": match.view("picked.ids"),
                "logprobs": match.view("logprob"),
                "logits_stride": i32(match.view("logits").strides[0]),
            },
            {
                "WIDTH": vocab,
                "WORDS": mask_words(vocab),
                "PARTS": next_power_of_two(-(-vocab // _PART)),
                "BLOCK_PART": _PART,
                "MASS_BITS": 62 - (vocab - 1).bit_length(),  # a row sums to 2^62 at most
            },
            grid=(rows, 1, 1),
            op="smxx_sample_row",
            num_warps=_num_warps(vocab, knobs),
            rows_of=("logits_stride",),
        ),
    )


_WHEN = fact("dtypes", "f64") & fact("dtypes", "i64") & axis_at_most("logits", 1, _MAX_VOCAB)
_KNOBS = (Knob("num_warps", (0, 4, 8, 16)),)

SAMPLE_ROW = Lowering(
    name="smxx_sample_row",
    pattern=SAMPLE_REGION,
    emit=_emit,
    when=_WHEN,
    knobs=_KNOBS,
    row_invariant=True,
)
