"""Lowerings of what ends a program."""

from __future__ import annotations

from lostwax.backends import predicates as P
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.portable.lowerings.calls import emit_call, f32_bytes, torch_calls
from lostwax.ir.dialects.sample import (
    BiasOp,
    LogprobOp,
    MaskOp,
    NucleusOp,
    PenaliseOp,
    PickOp,
    ScoreOp,
)
from lostwax.ir.region import Region

_PICK = "logits temperature seeds counters op.ids op.logprobs"
_PENALISE = "logits counts count_rows recent repetition frequency presence op.out"
_BIAS = "logits biases bias_rows op.out"
_MASK = "logits masks mask_rows op.out"
_NUCLEUS = "logits temperature top_k top_p min_p op.out"
_SCORE = "logits targets op.target_logprobs op.top_ids op.top_logprobs"


def _noise_bytes(match: Match, knobs: Knobs) -> int:
    return 10 * f32_bytes(*match.shape("logits"))


def _bits_bytes(match: Match, knobs: Knobs) -> int:
    rows, vocab = match.shape("logits")
    return f32_bytes(5 * rows + 6, vocab)


def _ranked_bytes(match: Match, knobs: Knobs) -> int:
    return 17 * f32_bytes(*match.shape("logits"))


SAMPLE = (
    Lowering(
        name="portable_pick",
        pattern=Region.single(PickOp),
        emit=emit_call("portable_pick", "sample:pick", _PICK),
        row_invariant=True,
        work=torch_calls(30),
        allocates=_noise_bytes,
    ),
    Lowering(
        name="portable_pick_greedy_or_warm",
        pattern=Region.single(PickOp),
        emit=emit_call(
            "portable_pick_greedy_or_warm",
            "sample:pick_greedy_or_warm",
            _PICK,
            capturable=False,
        ),
        when=P.not_captured() & P.host_memory(),
        row_invariant=True,
        work=torch_calls(6),
        allocates=_noise_bytes,
    ),
    Lowering(
        name="portable_penalise",
        pattern=Region.single(PenaliseOp),
        emit=emit_call("portable_penalise", "sample:penalise", _PENALISE),
        row_invariant=True,
        work=torch_calls(24),
        allocates=lambda match, knobs: 10 * f32_bytes(*match.shape("logits")),
    ),
    Lowering(
        name="portable_penalise_where_wanted",
        pattern=Region.single(PenaliseOp),
        emit=emit_call(
            "portable_penalise_where_wanted",
            "sample:penalise_where_wanted",
            _PENALISE,
            capturable=False,
        ),
        when=P.not_captured() & P.host_memory(),
        row_invariant=True,
        work=torch_calls(3),
        allocates=lambda match, knobs: 12 * f32_bytes(*match.shape("logits")),
    ),
    Lowering(
        name="portable_bias",
        pattern=Region.single(BiasOp),
        emit=emit_call("portable_bias", "sample:bias", _BIAS),
        row_invariant=True,
        work=torch_calls(6),
        allocates=lambda match, knobs: 4 * f32_bytes(*match.shape("logits")),
    ),
    Lowering(
        name="portable_bias_where_wanted",
        pattern=Region.single(BiasOp),
        emit=emit_call(
            "portable_bias_where_wanted", "sample:bias_where_wanted", _BIAS, capturable=False
        ),
        when=P.not_captured() & P.host_memory(),
        row_invariant=True,
        work=torch_calls(3),
        allocates=lambda match, knobs: 4 * f32_bytes(*match.shape("logits")),
    ),
    Lowering(
        name="portable_mask",
        pattern=Region.single(MaskOp),
        emit=emit_call("portable_mask", "sample:mask", _MASK),
        row_invariant=True,
        work=torch_calls(12),
        allocates=_bits_bytes,
    ),
    Lowering(
        name="portable_mask_where_wanted",
        pattern=Region.single(MaskOp),
        emit=emit_call(
            "portable_mask_where_wanted", "sample:mask_where_wanted", _MASK, capturable=False
        ),
        when=P.not_captured() & P.host_memory(),
        row_invariant=True,
        work=torch_calls(4),
        allocates=_bits_bytes,
    ),
    Lowering(
        name="portable_nucleus",
        pattern=Region.single(NucleusOp),
        emit=emit_call("portable_nucleus", "sample:nucleus", _NUCLEUS),
        row_invariant=True,
        work=torch_calls(24),
        allocates=_ranked_bytes,
    ),
    Lowering(
        name="portable_nucleus_where_wanted",
        pattern=Region.single(NucleusOp),
        emit=emit_call(
            "portable_nucleus_where_wanted",
            "sample:nucleus_where_wanted",
            _NUCLEUS,
            capturable=False,
        ),
        when=P.not_captured() & P.host_memory(),
        row_invariant=True,
        work=torch_calls(6),
        allocates=_ranked_bytes,
    ),
    Lowering(
        name="portable_logprob",
        pattern=Region.single(LogprobOp),
        emit=emit_call("portable_logprob", "sample:logprob", "logits targets op.logprobs"),
        row_invariant=True,
        work=torch_calls(5),
        allocates=lambda match, knobs: 2 * f32_bytes(*match.shape("logits")),
    ),
    Lowering(
        name="portable_score",
        pattern=Region.single(ScoreOp),
        emit=emit_call("portable_score", "sample:score", _SCORE),
        row_invariant=True,
        work=torch_calls(12),
        allocates=lambda match, knobs: 6 * f32_bytes(*match.shape("logits")),
    ),
)
