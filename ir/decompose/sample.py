"""The meaning of the `sample` ops in ONNX operators; the noise is integer arithmetic in i64."""

from __future__ import annotations

from functools import reduce

import numpy as np

from lostwax.ir.decompose.body import Body, Value, fixed
from lostwax.ir.dialects import sample

U32 = 1 << 32


def _times(x: Value, factor: int) -> Value:
    """x * factor modulo 2^32 for x below 2^32, in halves that stay below 2^63."""
    low, high = factor % 65536, factor // 65536
    return (x * low + (x * high % 65536) * 65536) % U32


def _fold(b: Body, x: Value, bits: int) -> Value:
    """x ^ (x >> bits)."""
    return b("BitwiseXor", x, x // (1 << bits))


def _uniform(b: Body, vocab: Value) -> Value:
    """(top 24 bits + 1/2) / 2^24 of a hash of (seed, counter, index): [R, V] f64."""
    terms = (
        _times(b.index("seeds") % U32, 0x9E3779B1).at(1),
        _times(b.index("counters") % U32, 0x85EBCA77).at(1),
        _times(b.counting(vocab), 0xC2B2AE3D).at(0),
    )
    x = reduce(lambda a, c: a + c, terms) % U32
    x = _times(_fold(b, x, 16), 0x7FEB352D)
    x = _times(_fold(b, x, 15), 0x846CA68B)
    return ((_fold(b, x, 16) // 256).to("f64") + 0.5) / float(2**24)


def _log_softmax(b: Body) -> Value:
    return b("LogSoftmax", b.real("logits"), axis=-1)


def _pick_column(b: Body, rows: Value, index: Value) -> Value:
    """rows[r, index[r]]."""
    return b("Squeeze", b("GatherElements", rows, index.at(1), axis=1), b.ints(1))


def pick(b: Body, op: sample.PickOp) -> tuple[Value, Value]:
    """The largest logit, or the largest of logit / temperature - log(-log(uniform)).

    In f64 whatever is computed in: 1 - 2^-25 is no f32.
    """
    logits, divisor = b.value("logits").to("f64"), b.value("temperature").to("f64").at(1)
    noise = b("Neg", b("Log", b("Neg", b("Log", _uniform(b, logits.extent(1))))))
    hot = divisor > 0.0
    noisy = logits / b.where(hot, divisor, 1.0) + noise
    ids = b(
        "ArgMax", b.where(hot, noisy, logits), dtype="i64", axis=-1, keepdims=0, select_last_index=0
    )
    return ids, _pick_column(b, _log_softmax(b), ids)


def penalise(b: Body, op: sample.PenaliseOp) -> Value:
    """Outputs are the halves of the row's own counts, and one for each equal recent id."""
    named, logits = b.index("count_rows"), b.value("logits")
    held = b.index("counts").gather(b("Max", named, b.constant(0, "i64")))
    ids = b.counting(logits.extent(1)).at(0, 1)
    is_recent = b.index("recent").at(2).equals(ids).to("i64")
    outputs = held // 2 + b("ReduceSum", is_recent, b.ints(1), keepdims=0)
    was_output = outputs > 0
    is_seen = b("Or", was_output, (held % 2).equals(1))
    factor, often, once = (b.value(n).at(1) for n in ("repetition", "frequency", "presence"))
    repeated = b.where(logits > 0.0, logits / factor, logits * factor)
    less = often * outputs.to(logits.dtype) + once * was_output.to(logits.dtype)
    out = b.where(is_seen, repeated, logits) - less
    return b.where((named >= 0).at(1), out, logits)


def bias(b: Body, op: sample.BiasOp) -> Value:
    """Each row's own numbers added, where it names a row."""
    named, logits = b.index("bias_rows"), b.value("logits")
    own = b.value("biases").gather(b("Max", named, b.constant(0, "i64")))
    return b.where((named >= 0).at(1), logits + own, logits)


def mask(b: Body, op: sample.MaskOp) -> Value:
    """Each row's own words, cut into 32 quotients by powers of two of which the odd ones allow."""
    words = b.index("masks") % U32
    named = b.index("mask_rows")
    own = words.gather(b("Max", named, b.constant(0, "i64")))
    powers = b.constant(2 ** np.arange(32, dtype=np.int64), "i64")
    bits = (own.at(2) // powers % 2).reshape(0, -1)
    logits = b.value("logits")
    is_allowed = bits.columns(0, fixed(op.shape(op.logits)[1])).equals(1)
    passes = (named < 0).at(1)
    return b.where(b("Or", is_allowed, passes), logits, float("-inf"))


def nucleus(b: Body, op: sample.NucleusOp) -> Value:
    """Softmax of the sorted row's first top_k, its exclusive running sum and its ratio to the
    first, and what stays put back in its place.

    In f64 whatever is computed in: a sum of many small masses decides.
    """
    logits, divisor = b.value("logits"), b.value("temperature").to("f64").at(1)
    share, least = (b.value(name).to("f64").at(1) for name in ("top_p", "min_p"))
    count, hot = b.index("top_k").at(1), divisor > 0.0
    ranked, order = b.top(logits, logits.extent(1))
    rank = b.counting(logits.extent(1)).at(0)
    in_count = b("Or", rank < count, count <= 0)
    heated = ranked.to("f64") / b.where(hot, divisor, 1.0)
    mass = b("Softmax", b.where(in_count, heated, float("-inf")), axis=-1)
    before = b("CumSum", mass, b.constant(1, "i64"), exclusive=1)
    in_share = b("Or", before < share, share >= 1.0)
    is_likely = b("Or", mass >= least * mass.columns(0, 1), least <= 0.0)
    stays = b("And", in_count, b("And", in_share, is_likely))
    stays = b("Or", b("Or", stays, rank.equals(0)), b("Not", hot))
    left = b.where(stays, ranked, float("-inf"))
    return b("ScatterElements", logits, order, left, axis=1)


def _of_target(b: Body, logprobs: Value) -> Value:
    """logprobs[r, targets[r]], 0 where the target is -1."""
    targets = b.index("targets")
    of_target = _pick_column(b, logprobs, b("Max", targets, b.constant(0, "i64")))
    return b.where(targets >= 0, of_target, 0.0)


def logprob(b: Body, op: sample.LogprobOp) -> Value:
    """The target's log-probability, -1: 0."""
    return _of_target(b, _log_softmax(b))


def score(b: Body, op: sample.ScoreOp) -> tuple[Value, Value, Value]:
    """The target's log-probability (-1: 0), and the n likeliest ids with theirs."""
    logprobs = _log_softmax(b)
    _, top_ids = b.top(b.value("logits"), b.attribute("n").at(0))
    top = b("GatherElements", logprobs, top_ids, axis=1)
    return _of_target(b, logprobs), top_ids, top
