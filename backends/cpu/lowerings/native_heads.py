"""What ends a head: adjusted logits, the nucleus, picks, log-probabilities. Native kernels.

A row is cut into parts, so that a long one is work for many threads; what a part leaves to the next
launch lies in the workspace.
"""

from __future__ import annotations

from collections.abc import Callable

from xdsl.irdl import IRDLOperation

from lostwax.backends import predicates as P
from lostwax.backends.cpu.contract.sizes import BIN_BYTES, BINS, ID_BYTES, PART, PART_BYTES
from lostwax.backends.cpu.lowerings.native_calls import (
    ON_HOST,
    Argument,
    in_a_list,
    native,
    num_rows,
    of_types,
)
from lostwax.backends.gpu_kernels.lowerings.launches import Carver
from lostwax.backends.lowering import Knobs, Lowering, Match
from lostwax.backends.portable.lowerings.calls import Emit
from lostwax.ir.contract.program import Launch, View
from lostwax.ir.dialects.sample import (
    BiasOp,
    LogprobOp,
    MaskOp,
    NucleusOp,
    PenaliseOp,
    PickOp,
    ScoreOp,
)
from lostwax.ir.region import Node, Region

ADJUSTED = Region(
    {
        "penalised": Node(
            "sample.penalise",
            {
                "logits": "logits",
                "counts": "counts",
                "count_rows": "count_rows",
                "recent": "recent",
                "repetition": "repetition",
                "frequency": "frequency",
                "presence": "presence",
            },
        ),
        "biased": Node(
            "sample.bias", {"logits": "penalised", "biases": "biases", "bias_rows": "bias_rows"}
        ),
        "masked": Node(
            "sample.mask", {"logits": "biased", "masks": "masks", "mask_rows": "mask_rows"}
        ),
    },
    outputs=("masked",),
)
"""All that a head may do to logits before the nucleus."""

_PENALTIES = ("counts", "count_rows", "recent", "repetition", "frequency", "presence")
_BIAS = ("biases", "bias_rows")
_MASK = ("masks", "mask_rows")
_STATES = ("counts", "biases", "masks")


def _parts(match: Match) -> int:
    """Of all rows together."""
    rows, vocab = match.shape("logits")
    return rows * -(-vocab // PART)


def _shape(match: Match) -> tuple[View, int, int, int]:
    """What kernels take to know parts of rows: the real rows, all, ids of a row and of a part."""
    rows, vocab = match.shape("logits")
    return num_rows(match), rows, vocab, PART


def _head_parts(match: Match, name: str, found: View, *, picks: bool) -> Launch:
    logits = match.view("logits")
    given: list[Argument] = [None, None, None]
    if picks:
        given = [match.view("temperature"), match.view("seeds"), match.view("counters")]
    return native(
        match, name, "head_parts", logits, *given, found, *_shape(match), logits.strides[0]
    )


def _carved_parts(match: Match, workspace: View | None) -> tuple[Carver, View]:
    carver = Carver(workspace)
    return carver, carver.take("u8", _parts(match), PART_BYTES)


def _emit_pick(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    name, logits = "cpu_native_pick", match.view("logits")
    _, found = _carved_parts(match, match.workspace)
    return (
        _head_parts(match, name, found, picks=True),
        native(
            match, name, "head_pick", logits, found, match.view("op.ids"),
            match.view("op.logprobs"), *_shape(match), logits.strides[0],
        ),
    )  # fmt: skip


def _logprob(match: Match, name: str, found: View, out: str) -> tuple[Launch, ...]:
    logits = match.view("logits")
    return (
        _head_parts(match, name, found, picks=False),
        native(
            match, name, "head_logprob", logits, found, match.view("targets"), match.view(out),
            *_shape(match), logits.strides[0],
        ),
    )  # fmt: skip


def _emit_logprob(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    _, found = _carved_parts(match, match.workspace)
    return _logprob(match, "cpu_native_logprob", found, "op.logprobs")


def _carved_score(match: Match, workspace: View | None) -> tuple[Carver, View, View]:
    carver, found = _carved_parts(match, workspace)
    return carver, found, carver.take("i64", _parts(match), match.shape("op.top_ids")[1])


def _emit_score(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    name, logits = "cpu_native_score", match.view("logits")
    _, found, keys = _carved_score(match, match.workspace)
    count = match.shape("op.top_ids")[1]
    return (
        *_logprob(match, name, found, "op.target_logprobs"),
        native(
            match, name, "head_first_of_parts", logits, keys, *_shape(match), count,
            logits.strides[0],
        ),
        native(
            match, name, "head_first", logits, found, keys, match.view("op.top_ids"),
            match.view("op.top_logprobs"), *_shape(match), count, logits.strides[0],
            scratch_bytes=8 * count,
        ),
    )  # fmt: skip


def _emit_adjust(name: str, out: str, *taken: str) -> Emit:
    def emit(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
        logits, adjusted = match.view("logits"), match.view(out)
        view = {each: match.view(each) for each in taken}

        held = [view[each].shape[0] if each in view else 0 for each in _STATES]
        steps = [view[each].strides[0] if each in view else 0 for each in _STATES]
        recent = view["recent"].shape[1] if "recent" in view else 0
        given = (view.get(each) for each in (*_PENALTIES, *_BIAS, *_MASK))
        return (
            native(
                match, name, "adjust_logits", logits, adjusted, *given, *_shape(match), recent,
                *held, logits.strides[0], adjusted.strides[0], *steps,
            ),
        )  # fmt: skip

    return emit


def _carved_nucleus(match: Match, workspace: View | None) -> tuple[Carver, View, View, View]:
    """Largest logits and bins of parts, keys of rows."""
    carver, count = Carver(workspace), _parts(match)
    return (
        carver,
        carver.take("f32", count),
        carver.take("u8", count, BINS * BIN_BYTES),
        carver.take("i64", match.shape("logits")[0]),
    )


def _emit_nucleus(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    vocab = match.shape("logits")[1]
    _, tops, bins, keys = _carved_nucleus(match, match.workspace)
    logits, out = match.view("logits"), match.view("op.out")
    asked = (match.view(each) for each in ("temperature", "top_k", "top_p", "min_p"))
    mass_bits = 62 - (vocab - 1).bit_length()  # a row's masses sum to 2^62 at most
    arguments = (
        logits, *asked, tops, bins, keys, out, *_shape(match), mass_bits, logits.strides[0],
        out.strides[0],
    )  # fmt: skip
    scratch = {"nucleus_rank": ID_BYTES * vocab}
    return tuple(
        native(match, "cpu_native_nucleus", each, *arguments, scratch_bytes=scratch.get(each, 0))
        for each in ("nucleus_top", "nucleus_weigh", "nucleus_rank", "nucleus_cut")
    )


def _lowering(
    name: str,
    pattern: Region | type[IRDLOperation],
    emit: Emit,
    workspace: Callable[[Match], int] = lambda match: 0,
) -> Lowering:
    return Lowering(
        name=name,
        pattern=pattern if isinstance(pattern, Region) else Region.single(pattern),
        emit=emit,
        when=ON_HOST & of_types("logits", "f32") & P.of_rows("logits"),
        row_invariant=True,
        workspace=lambda match, knobs: workspace(match),
        work=lambda match, knobs: in_a_list(match.work()),
    )


def _parts_bytes(match: Match) -> int:
    return _carved_parts(match, None)[0].num_bytes


def _score_bytes(match: Match) -> int:
    return _carved_score(match, None)[0].num_bytes


def _nucleus_bytes(match: Match) -> int:
    return _carved_nucleus(match, None)[0].num_bytes


def _adjust(name: str, pattern: Region | type[IRDLOperation], out: str, *taken: str) -> Lowering:
    return _lowering(name, pattern, _emit_adjust(name, out, *taken))


NATIVE_HEADS = (
    _adjust("cpu_native_penalise", PenaliseOp, "op.out", *_PENALTIES),
    _adjust("cpu_native_bias", BiasOp, "op.out", *_BIAS),
    _adjust("cpu_native_mask", MaskOp, "op.out", *_MASK),
    _adjust("cpu_native_adjust", ADJUSTED, "masked", *_PENALTIES, *_BIAS, *_MASK),
    _lowering("cpu_native_nucleus", NucleusOp, _emit_nucleus, _nucleus_bytes),
    _lowering("cpu_native_pick", PickOp, _emit_pick, _parts_bytes),
    _lowering("cpu_native_logprob", LogprobOp, _emit_logprob, _parts_bytes),
    _lowering("cpu_native_score", ScoreOp, _emit_score, _score_bytes),
)
