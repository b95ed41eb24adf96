"""Rules of `kernels/nucleus.cpp`."""

from __future__ import annotations

from lostwax.backends.cpu.contract.logits import logits, num_parts, of_rows, sizes
from lostwax.backends.cpu.contract.rule import Memory, Parameter, RealRows, Whole, rules_of
from lostwax.backends.cpu.contract.sizes import BIN_BYTES, BINS, ID_BYTES

_MASS_BITS = 62  # of an i64 without its sign, whose sum of two has room


def _nucleus() -> tuple[Parameter, ...]:
    return (
        logits(),
        of_rows("temperature", "f32"),
        of_rows("top_k", "i32"),
        of_rows("top_p", "f32"),
        of_rows("min_p", "f32"),
        Memory("tops", "f32", num_parts),
        Memory("bins", "u8", lambda n: num_parts(n) * BINS * BIN_BYTES),
        of_rows("keys", "i64"),
        logits("out"),
        RealRows(),
        *sizes(),
        Whole("mass_bits", most=_MASS_BITS),
        Whole("logits_row"),
        Whole("out_row"),
    )


NUCLEUS = (
    *rules_of("nucleus_top", ("",), _nucleus, chunks=num_parts),
    *rules_of("nucleus_weigh", ("",), _nucleus, chunks=num_parts),
    *rules_of(
        "nucleus_rank",
        ("",),
        _nucleus,
        chunks=lambda n: n.R,
        scratch_bytes=lambda n: ID_BYTES * n.width,
    ),
    *rules_of("nucleus_cut", ("",), _nucleus, chunks=num_parts),
)
