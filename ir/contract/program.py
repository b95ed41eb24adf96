"""What a compiled program is: launches over views of planned memory. Knows no torch, no device."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal

import msgspec

from lostwax.ir.contract.bounds import Bytes, Count, Few, FileName, OpenShape, Shape, Word
from lostwax.ir.contract.dtypes import DTYPE_BYTES

Entry = Literal["extend", "decode", "draft"]

Space = Literal["arena", "carry", "state", "weight", "plane", "input"]


class View(msgspec.Struct, frozen=True, kw_only=True):
    """A strided tensor inside one buffer.

    `space` and `name` say which buffer: `arena` (name empty), `carry` (delta/residual in or out,
    placed in the arena by the call), `state` (rows that outlive the step: `HIDDEN`), `weight` (name
    relative to the call's prefix), `plane` (cache plane of the call's layer, as [pages,
    page_tokens, row]), `input` (field of StepInputs).
    `strides` count elements, `offset` counts bytes from the start of that buffer.
    """

    space: Space
    name: str
    dtype: str
    shape: OpenShape
    strides: Shape
    offset: Bytes = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of the elements, as if dense."""
        return prod(self.shape) * DTYPE_BYTES[self.dtype]

    @property
    def span_bytes(self) -> int:
        """Bytes from the first element to the last; 0 without elements or with open pages."""
        if any(n < 1 for n in self.shape):
            return 0
        last = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        return (last + 1) * DTYPE_BYTES[self.dtype]


class Scalar(msgspec.Struct, frozen=True, tag="scalar"):
    """A by-value kernel parameter."""

    kind: Literal["i32", "i64", "f32"]
    value: int | float


class Pointer(msgspec.Struct, frozen=True, tag="pointer"):
    """A device-pointer kernel parameter: the first element of a view."""

    view: View


class Null(msgspec.Struct, frozen=True, tag="null"):
    """A null device pointer (Triton's trailing scratch parameters)."""


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
    """A launch of a compiled kernel: `binary` names a file in the artifact's `kernels/` folder."""

    binary: FileName
    symbol: Word
    grid: tuple[GridX, GridYZ, GridYZ]
    block: tuple[Threads, Threads, Threads]
    params: tuple[Pointer | Scalar | Null, ...]
    shared_bytes: Bytes = 0
    cluster: tuple[Threads, Threads, Threads] = (1, 1, 1)
    op: Word = ""


Launch = HostCall | KernelLaunch


class Bucket(msgspec.Struct, frozen=True, order=True):
    """Upper bounds of a step that a program is compiled for.

    `tokens` rows of the step (T), `reqs` requests (B), `pages` of the longest request (P), `rows`
    whose logits are wanted (R). `scores`: the head also gives log-probabilities of given targets
    and the top ones, and samples from each row's nucleus.
    """

    tokens: Count
    reqs: Count
    pages: Count
    rows: Count
    scores: bool = False

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


class Linear(msgspec.Struct, frozen=True):
    """The inequality `sum(coefficients[f] * facts.f) <= bound`."""

    coefficients: dict[Fact, int]
    bound: int

    def holds(self, facts: StepFacts) -> bool:
        """Whether the step's facts satisfy the inequality."""
        return sum(c * getattr(facts, f) for f, c in self.coefficients.items()) <= self.bound

    def __str__(self) -> str:
        terms = [f if c == 1 else f"{c}*{f}" for f, c in sorted(self.coefficients.items())]
        return f"{' + '.join(terms)} <= {self.bound}"


class Guard(msgspec.Struct, frozen=True):
    """A conjunction of linear inequalities over StepFacts; empty means always."""

    name: Word
    terms: tuple[Linear, ...] = ()

    def holds(self, facts: StepFacts) -> bool:
        """Whether a step with these facts may run a program under this guard."""
        return all(t.holds(facts) for t in self.terms)

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
    """The launches of one (entry, bucket, guard), over a statically planned arena."""

    entry: Entry
    bucket: Bucket
    guard: Guard
    arena_bytes: Bytes
    prepare: tuple[Launch, ...]
    blocks: dict[Word, tuple[Launch, ...]]
    calls: tuple[Call, ...]
    outputs: dict[Word, View]

    @property
    def name(self) -> str:
        """A file-name-safe name that is unique in an artifact."""
        b = self.bucket
        scores = "-scores" if b.scores else ""
        return f"{self.entry}-t{b.tokens}-b{b.reqs}-p{b.pages}-r{b.rows}{scores}-{self.guard.name}"
