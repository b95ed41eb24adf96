"""The lowering contract: how one region of ops runs on a target. Knows no IR text, no device."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from lostwax.backends.predicates import ALWAYS, Predicate
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import Bucket, Const, Guard, Launch, View
from lostwax.ir.contract.scale_layout import ScaleLayout
from lostwax.ir.contract.step_kernel import Prepared
from lostwax.ir.contract.target import Target
from lostwax.ir.contract.weights import ROW_MAJOR, WeightForm
from lostwax.ir.region import Region

Knobs = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Work:
    """What a lowering does, for the estimate: bytes moved, operations, launches."""

    num_bytes: float
    flops: float
    launches: int = 1


@dataclass(frozen=True, slots=True)
class Knob:
    """A named tuning parameter; the first value always works."""

    name: str
    values: tuple[int, ...]
    takes_memory: bool = True
    """Whether what the lowering needs of memory may depend on it."""


class Match(Protocol):
    """A region found in one program: what predicates, workspace, prepare and emit may ask.

    Value names are the pattern's (a scaled value's scales are `NAME:scale`). Shapes are concrete.
    """

    @property
    def target(self) -> Target:
        """Facts of the target."""
        ...

    @property
    def segment(self) -> str:
        """The program's segment: a body's entry, or a head."""
        ...

    @property
    def bucket(self) -> Bucket:
        """The program's bucket."""
        ...

    @property
    def guard(self) -> Guard:
        """The program's guard."""
        ...

    def shape(self, value: str) -> tuple[int, ...]:
        """Concrete shape of a tensor; of a cache: (pages of one request, page_tokens, row)."""
        ...

    def dtype(self, value: str) -> str:
        """Element type of a tensor value, or of a cache's plain layout (u8 where it is scaled)."""
        ...

    def layout(self, value: str) -> str:
        """Byte layout of a cache value."""
        ...

    def parts(self, value: str) -> tuple[int, ...]:
        """Widths of the parts of a cache value's row."""
        ...

    def is_scaled(self, value: str) -> bool:
        """Whether the value carries block scales."""
        ...

    def scale(self, value: str) -> ScaleLayout | None:
        """How the scales of a tensor value lie, None for plain values."""
        ...

    def is_rows(self, value: str) -> bool:
        """Whether a tensor's first axis is the program's rows, whose real ones the step input
        `num_rows` counts: T of a body, R of a head."""
        ...

    def attr(self, node: str, name: str) -> Const:
        """A property of a node's op, as a Python value (single-op regions: node `op`)."""
        ...

    def work(self) -> Work:
        """Bytes at the region's boundary and its ops' operations, one launch."""
        ...

    def view(self, value: str) -> View:
        """Where a boundary value lies (emit only). Weights come in the lowering's form."""
        ...

    def views(self, value: str) -> tuple[View, ...]:
        """The views of a variadic operand (emit only); `NAME:scale`: scales of those with any."""
        ...

    def step(self, name: str) -> View:
        """An output of this lowering's prepare, by its name (emit only)."""
        ...

    def step_input(self, name: str) -> View:
        """A step input of the program's segment, by its name in STEP_INPUTS (emit only)."""
        ...

    @property
    def workspace(self) -> View | None:
        """The declared workspace as u8 [bytes] (emit only)."""
        ...

    @property
    def zeroed(self) -> View | None:
        """The declared zeroed workspace as u8 [bytes], which must be left zero (emit only)."""
        ...

    def build(self, source: KernelSource) -> CompiledKernel:
        """Compile a kernel for the target, once per distinct source (emit only)."""
        ...


def _no_workspace(match: Match, knobs: Knobs) -> int:
    return 0


def _no_prepare(match: Match, knobs: Knobs) -> tuple[Prepared, ...]:
    return ()


def _default_work(match: Match, knobs: Knobs) -> Work:
    return match.work()


def _nothing_more(functions: Collection[str]) -> Mapping[str, str]:
    return {}


def asks_for_none(rows: int, heads: int) -> int:
    """No program of its own, whatever the rows of the bucket and the heads of a row."""
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowering:
    """One way to run a region.

    `weights` maps operand names to the form they are wanted in (row-major where not named; with
    `concat`, the form stands at its first operand). `work` replaces the estimate's default.
    `row_invariant`: a row's result does not depend on the other rows nor on the bucket.
    `zeroed` bytes are zero when its launches begin, and when they have ended: one buffer, outside
    the arena, that all lowerings share. `prepare` gives what is computed once a step for all
    layers, by host functions (`StepOp`) or kernels (`StepKernel`).
    `requires` names the installed packages (distributions) that its launches call beside torch: a
    record holds their versions, and loading refuses to start without them. `installed` gives the
    versions of what is no package, by name, from the host functions (`module:name`) that its
    launches call, as this machine has them: a record holds those, too.
    `contexts_a_row`: it may win where the requests of an extend step have together at most so many
    positions for each row of the bucket, and all are selected. Then there are programs with that
    guard, where it fits. `selecting_contexts`: likewise where some are not selected; the most
    positions by the rows of the bucket and the heads of a rank, 0 where no such program is wanted.
    `waiver`: its results are allowed to be further off, for the reason of that name in
    `proof/tolerance.py`; certificates say so.
    `by_name`: it is chosen only where `--lowering` names it, or a record has timed it.
    `library` names whose kernels do the work where they are not the project's own, torch's
    products included.
    """

    name: str
    pattern: Region
    emit: Callable[[Match, Knobs], tuple[Launch, ...]]
    when: Predicate = ALWAYS
    knobs: tuple[Knob, ...] = ()
    weights: Mapping[str, WeightForm] = field(default_factory=dict[str, WeightForm])
    row_invariant: bool = False
    deterministic: bool = True
    workspace: Callable[[Match, Knobs], int] = _no_workspace
    zeroed: Callable[[Match, Knobs], int] = _no_workspace
    prepare: Callable[[Match, Knobs], tuple[Prepared, ...]] = _no_prepare
    work: Callable[[Match, Knobs], Work] = _default_work
    allocates: Callable[[Match, Knobs], int] = _no_workspace
    requires: tuple[str, ...] = ()
    installed: Callable[[Collection[str]], Mapping[str, str]] = _nothing_more
    contexts_a_row: int = 0
    selecting_contexts: Callable[[int, int], int] = asks_for_none
    by_name: bool = False
    library: str = ""
    waiver: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for a pattern that does not say which op is which."""
        if pair := self.pattern.symmetry():
            raise ValueError(
                f"the pattern of {self.name} cannot tell {pair[0]!r} from {pair[1]!r}: wire them"
                " differently, match one of them, or let only one of the two leave"
            )

    def form(self, operand: str) -> WeightForm:
        """The form in which this lowering wants a weight operand."""
        return self.weights.get(operand, ROW_MAJOR)

    def default_knobs(self) -> dict[str, int]:
        """The first value of each knob."""
        return {k.name: k.values[0] for k in self.knobs}

    def require_knobs(self, knobs: Mapping[str, int]) -> None:
        """Raise ValueError for a knob or a value that this lowering does not have."""
        known = {k.name: k.values for k in self.knobs}
        wrong = {n: v for n, v in knobs.items() if v not in known.get(n, ())}
        if wrong:
            name, value = next(iter(wrong.items()))
            raise ValueError(f"{self.name} has no setting {name}={value}; it has {known}")
