"""Pick, masks, nucleus, log-probabilities over rows that are split over programs. Knows no device.

All sums are integers: neither `block` nor the number of rows changes a bit of a result, and
`sample.pick` gives an id the log-probability that `sample.logprob` gives it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lostwax.backends.gpu_kernels.lowerings.launches import (
    Argument,
    Carver,
    i32,
    next_power_of_two,
    real_rows,
    triton_launch,
)
from lostwax.backends.lowering import Knob, Knobs, Lowering, Match, Work
from lostwax.backends.predicates import axis_at_most, fact, of_rows
from lostwax.ir.contract.masks import mask_words
from lostwax.ir.contract.program import KernelLaunch, Launch, View
from lostwax.ir.dialects.sample import LogprobOp, MaskOp, NucleusOp, PickOp
from lostwax.ir.region import Region

_KERNELS = "lostwax.backends.gpu_kernels"
_MAX_VOCAB = 1 << 18  # a program holds a sum of each part of its row in registers
_DIGIT_BITS = 4
_SHIFTS = tuple(range(32 - _DIGIT_BITS, -1, -_DIGIT_BITS))
"""The lowest bit of each digit of a logit, the highest digit first."""
_SUMS = len(_SHIFTS) << _DIGIT_BITS
Arguments = dict[str, Argument]


@dataclass(frozen=True, slots=True)
class _Scratch:
    """What programs of one launch leave to the next, by name, cut from the workspace."""

    views: dict[str, View]
    num_bytes: int

    @classmethod
    def of(cls, workspace: View | None, **tensors: tuple[str, tuple[int, ...]]) -> _Scratch:
        """Tensors by dtype and shape; without a workspace only `num_bytes` counts."""
        carver = Carver(workspace)
        views = {name: carver.take(dtype, *shape) for name, (dtype, shape) in tensors.items()}
        return cls(views, carver.num_bytes)


def _size(match: Match, knobs: Knobs) -> tuple[int, int]:
    """Rows, and parts of a row."""
    rows, vocab = match.shape("logits")
    return rows, -(-vocab // knobs["block"])


def _launch(
    match: Match,
    knobs: Knobs,
    kernel: str,
    arguments: Arguments,
    constants: str,
    *,
    op: str,
    split: bool = True,
) -> KernelLaunch:
    """`module:name` over parts of rows, or over rows where it is not `split`; constants by name."""
    rows, parts = _size(match, knobs)
    vocab = match.shape("logits")[1]
    known = {
        "WIDTH": vocab,
        "WORDS": mask_words(vocab),
        "BLOCK": knobs["block"],
        "BLOCK_PARTS": next_power_of_two(parts),
        "DIGIT_BITS": _DIGIT_BITS,
        "SUMS": _SUMS,
        "MASS_BITS": 62 - (vocab - 1).bit_length(),  # a row's masses sum to 2^62 at most
    }
    return triton_launch(
        match,
        f"{_KERNELS}.{kernel}",
        arguments,
        {name: known[name] for name in constants.split()},
        grid=(rows, parts if split else 1, 1),
        op=op,
        num_warps=knobs["num_warps"],
        rows_of=tuple(n for n in arguments if n.endswith("_stride")),
    )


def _sizes(match: Match, knobs: Knobs, *rows_of: str) -> Arguments:
    """Strides of values that are rows of logits, and the number of parts."""
    found: Arguments = {}
    for name in rows_of:
        view = match.view(name)
        found[f"{name.removeprefix('op.')}_stride"] = i32(view.strides[0])
    return found | {"parts": i32(_size(match, knobs)[1])}


def _best(match: Match, knobs: Knobs, workspace: View | None) -> _Scratch:
    size = _size(match, knobs)
    return _Scratch.of(
        workspace,
        scores=("f64", size), ids=("i32", size), tops=("f32", size), sums=("i64", size),
    )  # fmt: skip


def _emit_pick(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    parts, sizes = _best(match, knobs, match.workspace).views, _sizes(match, knobs, "logits")
    inputs = {n: match.view(n) for n in ("logits", "temperature", "seeds", "counters")}
    combined: Arguments = {
        "logits": match.view("logits"),
        "part_scores": parts["scores"],
        "part_ids": parts["ids"],
        "tops": parts["tops"],
        "sums": parts["sums"],
        "ids": match.view("op.ids"),
        "logprobs": match.view("op.logprobs"),
    }
    op = "smxx_pick"
    return (
        _launch(
            match, knobs, "pick:pick_split", {**inputs, **parts, **sizes},
            "WIDTH BLOCK MASS_BITS", op=op,
        ),
        _launch(
            match, knobs, "pick:pick_combine", combined | sizes,
            "BLOCK_PARTS MASS_BITS", op=op, split=False,
        ),
    )  # fmt: skip


def _emit_mask(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    given: Arguments = {n: match.view(n) for n in ("logits", "masks", "mask_rows")}
    given |= {"out": match.view("op.out"), "real_rows": real_rows(match)}
    for name in ("logits", "op.out"):
        given[f"{name.removeprefix('op.')}_stride"] = i32(match.view(name).strides[0])
    constants, kernel = "WIDTH WORDS BLOCK", "mask:mask_logits"
    return (_launch(match, knobs, kernel, given, constants, op="smxx_mask"),)


def _exponentials(match: Match, knobs: Knobs, workspace: View | None) -> _Scratch:
    size = _size(match, knobs)
    return _Scratch.of(workspace, tops=("f32", size), sums=("i64", size))


def _emit_logprob(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    parts = _exponentials(match, knobs, match.workspace).views
    sizes = _sizes(match, knobs, "logits")
    logits, op = match.view("logits"), "smxx_logprob"
    combined: Arguments = {"logits": logits, "targets": match.view("targets"), **parts}
    combined["logprobs"] = match.view("op.logprobs")
    return (
        _launch(
            match, knobs, "pick:logprob_split", {"logits": logits, **parts, **sizes},
            "WIDTH BLOCK MASS_BITS", op=op,
        ),
        _launch(
            match, knobs, "pick:logprob_combine", combined | sizes,
            "BLOCK_PARTS MASS_BITS", op=op, split=False,
        ),
    )  # fmt: skip


def _masses(match: Match, knobs: Knobs, workspace: View | None) -> _Scratch:
    """State twice: a launch reads what the one before it wrote."""
    rows, parts = _size(match, knobs)
    state = ("i64", (rows, 3))
    return _Scratch.of(
        workspace,
        tops=("f32", (rows, parts)),
        masses=("i64", (rows, parts, 1 << _DIGIT_BITS)),
        sums=("i64", (rows, _SUMS)),
        state_0=state,
        state_1=state,
        last=("i32", (rows,)),
    )


def _emit_nucleus(match: Match, knobs: Knobs) -> tuple[Launch, ...]:
    scratch = _masses(match, knobs, match.workspace).views
    logits, out, tops = match.view("logits"), match.view("op.out"), scratch["tops"]
    states = scratch["state_0"], scratch["state_1"]
    given: Arguments = {n: match.view(n) for n in ("logits", "temperature", "top_k", "top_p")}
    given |= {n: scratch[n] for n in ("tops", "last", "masses", "sums")}
    op, constants = "smxx_nucleus", "WIDTH BLOCK BLOCK_PARTS DIGIT_BITS MASS_BITS SUMS"
    one, both = _sizes(match, knobs, "logits"), _sizes(match, knobs, "logits", "op.out")
    copied: Arguments = {"logits": logits, "out": out, "tops": tops, "sums": scratch["sums"]}
    ranked = {n: given[n] for n in ("logits", "temperature", "top_k", "tops", "last")} | one
    launches = [
        _launch(match, knobs, "nucleus:nucleus_copy", copied | both, "WIDTH BLOCK SUMS", op=op),
        _launch(
            match, knobs, "nucleus:nucleus_rank", ranked,
            "WIDTH BLOCK BLOCK_PARTS", op=op, split=False,
        ),
    ]  # fmt: skip
    for level, shift in enumerate(_SHIFTS):
        old, new = states[(level + 1) % 2], states[level % 2]
        narrowed = given | {"state_before": old, "state": new, **one, "shift": i32(shift)}
        launches.append(_launch(match, knobs, "nucleus:nucleus_narrow", narrowed, constants, op=op))
    cut = given | {"min_p": match.view("min_p"), "state": states[(len(_SHIFTS) - 1) % 2]}
    cut |= {"out": out, **both}
    launches.append(_launch(match, knobs, "nucleus:nucleus_cut", cut, constants, op=op))
    return tuple(launches)


def _work(launches: int) -> Callable[[Match, Knobs], Work]:
    """Logits cross the device's memory once: what reads a row again finds it in the cache."""
    return lambda match, knobs: replace(match.work(), launches=launches)


_WHEN = fact("dtypes", "f64") & fact("dtypes", "i64") & axis_at_most("logits", 1, _MAX_VOCAB)
_KNOBS = (Knob("block", (1024, 512, 2048)), Knob("num_warps", (8, 4, 16)))

PICK = Lowering(
    name="smxx_pick",
    pattern=Region.single(PickOp),
    emit=_emit_pick,
    when=_WHEN,
    knobs=_KNOBS,
    row_invariant=True,
    workspace=lambda match, knobs: _best(match, knobs, None).num_bytes,
    work=_work(2),
)

MASK = Lowering(
    name="smxx_mask",
    pattern=Region.single(MaskOp),
    emit=_emit_mask,
    when=axis_at_most("logits", 1, _MAX_VOCAB) & of_rows("logits"),
    knobs=_KNOBS,
    row_invariant=True,
    work=_work(1),
)

NUCLEUS = Lowering(
    name="smxx_nucleus",
    pattern=Region.single(NucleusOp),
    emit=_emit_nucleus,
    when=_WHEN,
    knobs=_KNOBS,
    row_invariant=True,
    workspace=lambda match, knobs: _masses(match, knobs, None).num_bytes,
    work=_work(3 + len(_SHIFTS)),
)

LOGPROB = Lowering(
    name="smxx_logprob",
    pattern=Region.single(LogprobOp),
    emit=_emit_logprob,
    when=_WHEN,
    knobs=_KNOBS,
    row_invariant=True,
    workspace=lambda match, knobs: _exponentials(match, knobs, None).num_bytes,
    work=_work(2),
)
