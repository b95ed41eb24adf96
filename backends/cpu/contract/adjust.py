"""Rules of `kernels/adjust.cpp`."""

from __future__ import annotations

from lostwax.backends.cpu.contract.logits import logits, num_parts, of_rows, sizes
from lostwax.backends.cpu.contract.rule import (
    Demand,
    Memory,
    Parameter,
    RealRows,
    parts,
    rules_of,
    strided,
    wholes,
)

_MASK_WORD = 32  # ids


def _adjust() -> tuple[Parameter, ...]:
    return (
        logits(),
        logits("out"),
        Memory("counts", "i32", lambda n: strided((n.C, n.counts_row), (n.width, 1)), True),
        of_rows("count_rows", "i32", may_be_null=True),
        Memory("recent", "i32", lambda n: n.R * n.many, True),
        of_rows("repetition", "f32", may_be_null=True),
        of_rows("frequency", "f32", may_be_null=True),
        of_rows("presence", "f32", may_be_null=True),
        Memory("biases", "f32", lambda n: strided((n.Q, n.biases_row), (n.width, 1)), True),
        of_rows("bias_rows", "i32", may_be_null=True),
        Memory(
            "masks",
            "i32",
            lambda n: strided((n.M, n.masks_row), (parts(n.width, _MASK_WORD), 1)),
            True,
        ),
        of_rows("mask_rows", "i32", may_be_null=True),
        RealRows(),
        *sizes(),
        *wholes("many C Q M logits_row out_row counts_row biases_row masks_row"),
    )


ADJUST = rules_of(
    "adjust_logits",
    ("",),
    _adjust,
    chunks=num_parts,
    demands=(
        Demand(
            "counts, recent, repetition, frequency and presence where there are count_rows",
            lambda n: (
                n.count_rows <= min(n.counts, n.recent, n.repetition, n.frequency, n.presence)
            ),
        ),
        Demand("biases where there are bias_rows", lambda n: n.bias_rows <= n.biases),
        Demand("masks where there are mask_rows", lambda n: n.mask_rows <= n.masks),
    ),
)
