"""Which activations are the default on NVIDIA's GPUs: the most exact that costs little.

One form for decode and prefill: where fp8 is the faster in decode it is by far the faster in
prefill, whose products are bound by operations, of which bf16 activations take two.
"""

from __future__ import annotations

from statistics import geometric_mean

from lostwax.backends.activation_choice import ActivationChoice
from lostwax.ir.contract.target import Target

MOST = 1.06
"""Of the fastest form's decode step, what a more exact form may take and be the default."""
MEASURED = {"sm_90a": {1: (1446.6, 1304.6), 16: (2599.1, 2508.1), 64: (3482.8, 3284.0)}}
"""By arch and rows: microseconds of a decode step of five layers at full width at context 4,096
over a bf16 cache, with bf16 activations and with fp8 (`python benchmarks/full_step.py`, one H200,
benchmarks/results/2026-11-29-h200-full-step.json)."""


def activations(target: Target) -> ActivationChoice:
    """The default where weights are FP8."""
    steps = MEASURED.get(target.arch)
    if steps is None:
        return ActivationChoice("model", f"no step was timed on {target.arch}")
    share = geometric_mean(exact / fastest for exact, fastest in steps.values())
    rows = ", ".join(map(str, steps))
    reason = (
        f"with bf16 a decode step takes {share:.4f} of the time with fp8 (geometric mean over"
        f" {rows} rows, measured on one H200); up to {MOST} the more exact form is the default"
    )
    return ActivationChoice("model" if share <= MOST else "fp8", reason)
