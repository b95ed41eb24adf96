"""What a compiled program is: launches over views of planned memory. Knows no torch, no device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, get_args

import msgspec

from lostwax.ir.contract.bounds import Bytes, Few, FileName, Some, Word
from lostwax.ir.contract.parameter import Parameter, views_of_parameter
from lostwax.ir.contract.view import View

Entry = Literal["extend", "decode", "draft"]
"""What bodies are compiled for: new rows, a row or a few a request, rows of the MTP layer."""

Head = Literal["pick", "sample", "score"]
"""What reads a body's hidden rows: ids of all ids' noise; of a nucleus; these with scores."""

HEADS: tuple[Head, ...] = get_args(Head)
"""In order of what they can do: each gives what those before it give."""

Segment = Literal["extend", "decode", "draft", "pick", "sample", "score"]
"""An entry's body or a head: what is replayed as one. They meet in the hidden state."""

SEGMENTS: tuple[Segment, ...] = get_args(Segment)

Const = int | float | bool | str

# What CUDA and HIP take of a launch.
GridX = Annotated[int, msgspec.Meta(ge=1, lt=1 << 31)]
GridYZ = Annotated[int, msgspec.Meta(ge=1, lt=1 << 16)]
Threads = Annotated[int, msgspec.Meta(ge=1, le=1024)]


class HostCall(msgspec.Struct, frozen=True, kw_only=True, tag="host"):
    """A call of a named host function: `function(*views_as_tensors, **consts)`.

    `function` is `module:name`; the module must lie below a `kernels` package of the target or of
    `backends.portable`. `capturable` promises that it may run under device-graph capture (no host
    reads, no shapes from data, no allocation that capture forbids): who does not say so cannot.
    `allocates` is the upper bound in bytes of what it allocates outside the arena.
    """

    function: Word
    args: tuple[View | None, ...]
    consts: dict[Word, Const] = {}
    capturable: bool = False
    allocates: Bytes = 0
    op: Word = ""
    """The lowering's name, for traces and errors."""


class KernelLaunch(msgspec.Struct, frozen=True, kw_only=True, tag="kernel"):
    """A launch of a compiled kernel: `binary` names a file in the artifact's `kernels/` folder.

    `cluster` are blocks that share memory and barriers. A `programmatic` launch may begin before
    the kernel in front of it has ended, and waits for it itself (griddepcontrol) before it reads
    what that one writes. Blocks of a `cooperative` launch are all resident at once, so that the
    grid may have barriers. What a target lacks of these, its facts say.
    """

    binary: FileName
    symbol: Word
    grid: tuple[GridX, GridYZ, GridYZ]
    block: tuple[Threads, Threads, Threads]
    params: tuple[Parameter, ...]
    shared_bytes: Bytes = 0
    cluster: tuple[Threads, Threads, Threads] = (1, 1, 1)
    programmatic: bool = False
    cooperative: bool = False
    op: Word = ""


Launch = HostCall | KernelLaunch


def views_of(launch: Launch) -> list[View]:
    """The memory that a launch is given."""
    if isinstance(launch, HostCall):
        return [view for view in launch.args if view is not None]
    return [view for param in launch.params for view in views_of_parameter(param)]


class Bucket(msgspec.Struct, frozen=True, order=True):
    """Upper bounds that a program is compiled for.

    A body has `tokens` rows of the step (T), `reqs` requests (B), `pages` of the longest request
    (P); a head has `rows` whose logits are wanted (R). What a segment does not have is 0.
    """

    tokens: Some = 0
    reqs: Some = 0
    pages: Some = 0
    rows: Some = 0

    @property
    def most_rows(self) -> int:
        """Rows that a body runs, or logit rows that a head takes."""
        return self.tokens or self.rows

    @property
    def rows_a_req(self) -> int:
        """Rows of one request in a decode step: 1, or more to verify drafts."""
        return self.tokens // self.reqs


class StepFacts(msgspec.Struct, frozen=True):
    """What guards may ask about a step. Lengths count tokens; kv includes the step's own."""

    num_reqs: int
    max_q: int
    total_q: int
    max_kv: int
    total_kv: int


Fact = Literal["num_reqs", "max_q", "total_q", "max_kv", "total_kv"]
"""Fields of StepFacts: what a file may name of it."""


LENGTHS: tuple[Fact, ...] = ("max_kv", "total_kv")
"""What the host knows only from above while drafts are verified."""


class Linear(msgspec.Struct, frozen=True):
    """The inequality `sum(coefficients[f] * facts.f) <= bound`."""

    coefficients: dict[Fact, int]
    bound: int

    def holds(self, facts: StepFacts) -> bool:
        """Whether the step's facts satisfy the inequality."""
        return sum([c * getattr(facts, f) for f, c in self.coefficients.items()]) <= self.bound

    def __str__(self) -> str:
        terms = [f if c == 1 else f"{c}*{f}" for f, c in sorted(self.coefficients.items())]
        return f"{' + '.join(terms)} <= {self.bound}"


class Guard(msgspec.Struct, frozen=True):
    """A conjunction of linear inequalities over StepFacts; empty means always.

    `selects_all`: in every step that the program takes each visible position is selected, so that
    its module has no indexer; the inequalities or the bucket imply it. The name decides nothing.
    """

    name: Word
    terms: tuple[Linear, ...] = ()
    selects_all: bool = False

    def holds(self, facts: StepFacts) -> bool:
        """Whether a step with these facts may run a program under this guard."""
        return all([t.holds(facts) for t in self.terms])

    def refusal(self) -> str:
        """Why the host cannot decide this guard, empty where it can.

        Lengths are known as upper bounds: where a longer one could make an inequality hold, one
        that holds of the bound need not hold of the step.
        """
        for term in self.terms:
            for fact in LENGTHS:
                if term.coefficients.get(fact, 0) < 0:
                    return (
                        f"its guard ({term}) has a negative coefficient of {fact}: lengths are"
                        " known as upper bounds; state the inequality with coefficients of at"
                        " least 0"
                    )
        return ""

    def longest(self, otherwise: int) -> int:
        """Most positions of one request under this guard, where `otherwise` bounds them already."""
        bounds = [t.bound for t in self.terms if t.coefficients == {"max_kv": 1}]
        return min((otherwise, *bounds))

    def together(self, otherwise: int) -> int:
        """Most positions of all requests under this guard; `otherwise` bounds them already."""
        bounds = [t.bound for t in self.terms if t.coefficients == {"total_kv": 1}]
        return min((otherwise, *bounds))

    def __str__(self) -> str:
        return " and ".join(map(str, self.terms)) or "always"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One layer: runs the launches of `block` with that layer's weights and cache planes.

    `carry` maps carry names (`delta_in`, `residual_in`, `delta_out`, `residual_out`) to byte
    offsets in the arena.
    """

    block: Word
    prefix: Word
    layer: Few
    carry: dict[Word, Bytes] = {}


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """The launches of one (segment, bucket, guard), over a statically planned arena.

    `prepare` runs before all calls, `finish` behind them.
    """

    segment: Segment
    bucket: Bucket
    guard: Guard
    arena_bytes: Bytes
    prepare: tuple[Launch, ...]
    blocks: dict[Word, tuple[Launch, ...]]
    calls: tuple[Call, ...]
    outputs: dict[Word, View]
    finish: tuple[Launch, ...] = ()

    @property
    def name(self) -> str:
        """A file-name-safe name that is unique in an artifact."""
        b = self.bucket
        if self.segment in HEADS:
            return f"{self.segment}-r{b.rows}"
        return f"{self.segment}-t{b.tokens}-b{b.reqs}-p{b.pages}-{self.guard.name}"


def launches_of(program: Program) -> Iterator[Launch]:
    """Every launch of a program, those of a block once."""
    yield from program.prepare
    for launches in program.blocks.values():
        yield from launches
    yield from program.finish
