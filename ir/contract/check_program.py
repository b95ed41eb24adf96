"""Whether a program keeps to its memory and to what its artifact has. Runs nothing.

What a launch computes cannot be told from its program: probes and certificates are for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from lostwax.ir.contract.artifact import Manifest, ProgramRef
from lostwax.ir.contract.biases import BIASES, biases_shape
from lostwax.ir.contract.captured import forbidding, must_be_captured
from lostwax.ir.contract.check_launch import check_launch
from lostwax.ir.contract.check_views import (
    Inconsistent,
    end_of,
    require,
    require_pages,
    require_within,
)
from lostwax.ir.contract.check_weights import WeightSizes
from lostwax.ir.contract.counts import COUNTS, counts_shape
from lostwax.ir.contract.dtypes import DTYPE_BYTES
from lostwax.ir.contract.masks import MASKS, masks_shape
from lostwax.ir.contract.program import (
    HEADS,
    Call,
    HostCall,
    Launch,
    Program,
    View,
    launches_of,
    views_of,
)
from lostwax.ir.contract.step import HIDDEN, MAX_RANKED, STEP_INPUTS, input_shape, inputs_of
from lostwax.ir.contract.step_layout import (
    PLAN,
    SEQUENCES,
    STEP_OP,
    StepLayout,
    step_launches,
)

PICKED = {"ids": "i32", "logprobs": "f32"}
SCORED = PICKED | {"target_logprobs": "f32", "top_ids": "i32", "top_logprobs": "f32"}
"""What heads give, with its dtype: all but the top ones a number a row."""
RANKED = ("top_ids", "top_logprobs")


def symbols_of(manifest: Manifest) -> dict[str, set[str]]:
    """The kernels of each binary."""
    found: dict[str, set[str]] = {}
    for kernel in manifest.kernels:
        found.setdefault(kernel.binary, set()).add(kernel.symbol)
    return found


def step_states(manifest: Manifest) -> dict[str, int]:
    """Bytes of what a device keeps of steps, by name, and of the boxes; nothing where the host
    keeps it."""
    if not manifest.step_on_device:
        return {}
    layout = StepLayout.of(manifest.limits)
    boxes = {box.name: box.num_bytes for box in (layout.sent_box, layout.result_box)}
    return {PLAN: layout.plan_bytes, SEQUENCES: layout.sequences_bytes, **boxes}


@dataclass(frozen=True, slots=True)
class _Reach:
    """What a block's launches ask of memory that each call gives anew, by name."""

    carry: Mapping[str, tuple[View, ...]]
    weights: Mapping[str, tuple[View, ...]]
    planes: frozenset[str]


class ProgramCheck:
    """Checks the programs of one artifact."""

    def __init__(self, manifest: Manifest, weights: WeightSizes) -> None:
        self._manifest = manifest
        self._weights = weights
        self._planes = {plane.name: plane for plane in manifest.planes}
        self._symbols = symbols_of(manifest)
        self._states = step_states(manifest)

    def __call__(self, program: Program, ref: ProgramRef) -> None:
        """Raise Inconsistent, naming the part, where a program is not as its artifact says."""
        told = (ref.segment, ref.bucket, ref.guard, ref.arena_bytes)
        own = (program.segment, program.bucket, program.guard, program.arena_bytes)
        require(told == own, "its segment, bucket, guard or arena is not the manifest's")
        for launch in launches_of(program):
            check_launch(launch, self._symbols, self._manifest.target)
        self._check_captured(program)
        for name, launches in (("prepare", program.prepare), ("finish", program.finish)):
            for view in _views(launches):
                lies_well = view.space in ("arena", "input", "state")
                require(lies_well, f"{name} reads {view.space} memory")
                self._check_own(view, program)
        self._check_step(program)
        reach = {
            name: self._check_block(launches, program) for name, launches in program.blocks.items()
        }
        require(bool(program.calls), "it calls no block")
        for call in program.calls:
            require(call.block in reach, f"it calls block {call.block!r}, which it does not have")
            self._check_call(call, reach[call.block], program)
        self._check_outputs(program)

    def _check_captured(self, program: Program) -> None:
        """A program that the target captures at any size is never walked for want of a promise."""
        target = self._manifest.target
        if not must_be_captured(program.segment, target):
            return
        call = forbidding(program)
        if call is not None:
            raise Inconsistent(
                f"{call.op} calls {call.function}, which may not be captured (its capturable is"
                f" false), and target {target.name} captures each {program.segment} program"
            )

    def _check_step(self, program: Program) -> None:
        """The step's launches stand around a program exactly where the device keeps the state."""
        on_device = self._manifest.step_on_device
        before, behind = step_launches(program.segment) if on_device else ((), ())
        prepare, finish = ([x.op for x in part] for part in (program.prepare, program.finish))
        around = tuple(prepare[: len(before)]) == before and tuple(finish) == behind
        inner = [*prepare[len(before) :], *(x.op for b in program.blocks.values() for x in b)]
        require(
            around and not any(op.startswith(STEP_OP) for op in inner),
            "the step's launches do not stand around it, as the manifest says that they do"
            if before
            else "it has launches of the step, which the host makes for it",
        )

    def _check_block(self, launches: Iterable[Launch], program: Program) -> _Reach:
        carry: dict[str, list[View]] = {}
        weights: dict[str, list[View]] = {}
        planes: set[str] = set()
        for view in _views(launches):
            if view.space == "carry":
                carry.setdefault(view.name, []).append(view)
            elif view.space == "weight":
                weights.setdefault(view.name, []).append(view)
            elif view.space == "plane":
                require(program.segment not in HEADS, "a head reads or writes caches")
                planes.add(view.name)
                plane = self._planes.get(view.name)
                if plane is None:
                    raise Inconsistent(f"it reads a plane {view.name!r}, which is not there")
                require_pages(view, plane.page_bytes)
            else:
                self._check_own(view, program)
        return _Reach(
            {name: _farthest(views) for name, views in carry.items()},
            {name: _farthest(views) for name, views in weights.items()},
            frozenset(planes),
        )

    def _check_own(self, view: View, program: Program) -> None:
        """A view of memory that is the same for all calls."""
        if view.space == "arena":
            require_within(view, program.arena_bytes)
        elif view.space == "state":
            if view.name in self._states:
                require_within(view, self._states[view.name])
                return
            if view.name in (BIASES, COUNTS, MASKS):
                self._check_sampled(view, program)
                return
            require(view.name == HIDDEN, f"there is no state {view.name!r}")
            self._check_hidden(view, program)
        elif view.space == "zeroed":
            require(not view.name, f"there is no zeroed memory {view.name!r}")
            require_within(view, self._manifest.zeroed_bytes)
        else:
            require_within(view, _input_bytes(view, program))

    def _check_hidden(self, view: View, program: Program) -> None:
        """Bodies write their rows, first in the state; heads and drafts read it whole."""
        width = self._manifest.model.hidden_size
        every = self._manifest.state_bytes // (width * DTYPE_BYTES[view.dtype])
        rows = {every} if program.segment in HEADS else {program.bucket.tokens}
        if program.segment == "draft":
            rows.add(every)
        fits = view.offset == 0 and view.strides == (width, 1) and len(view.shape) == 2
        require(
            fits and view.shape[1] == width and view.shape[0] in rows,
            f"it takes {list(view.shape)} at {view.offset} of the hidden state, which has"
            f" {every} rows of {width} numbers",
        )

    def _check_sampled(self, view: View, program: Program) -> None:
        """Heads that sample read masks, counts and biases, all of them."""
        limits = self._manifest.limits
        shape, dtype, unit = {
            MASKS: (masks_shape(limits), "i32", "words"),
            COUNTS: (counts_shape(limits), "i32", "numbers"),
            BIASES: (biases_shape(limits), "f32", "numbers"),
        }[view.name]
        fits = view.offset == 0 and view.dtype == dtype and view.strides == (shape[1], 1)
        require(
            program.segment in ("sample", "score") and fits and view.shape == shape,
            f"a {program.segment} program takes {view.dtype} {list(view.shape)} at {view.offset} of"
            f" the {view.name}, of which there are {shape[0]} of {shape[1]} {unit}",
        )

    def _check_call(self, call: Call, reach: _Reach, program: Program) -> None:
        for name, views in reach.carry.items():
            start = call.carry.get(name)
            if start is None:
                raise Inconsistent(f"block {call.block!r} reads {name!r}, which no call carries")
            for view in views:
                require_within(view, program.arena_bytes, start)
        sizes = self._weights.get(call.prefix, {})
        for name, views in reach.weights.items():
            size = sizes.get(name)
            if size is None:
                raise Inconsistent(f"it reads weight {call.prefix + name!r}, which is not stored")
            for view in views:
                require_within(view, size)
        for name in reach.planes:
            if call.layer >= self._planes[name].layers:
                raise Inconsistent(f"plane {name!r} has no layer {call.layer}")

    def _check_outputs(self, program: Program) -> None:
        if program.segment not in HEADS:
            require(not program.outputs, "a body gives hidden rows, and no other outputs")
            return
        wanted, rows = SCORED if program.segment == "score" else PICKED, program.bucket.rows
        unknown = sorted(program.outputs.keys() - wanted)
        require(not unknown, f"it gives {unknown[:1]}, which no {program.segment} head gives")
        missing = [name for name in wanted if name not in program.outputs]
        require(not missing, f"it does not give {missing}")
        for name, view in program.outputs.items():
            require(view.space == "arena", f"its output {name!r} lies in {view.space} memory")
            require_within(view, program.arena_bytes)
            inner = view.shape[1:]
            fits = len(inner) == 1 and 1 <= inner[0] <= MAX_RANKED if name in RANKED else not inner
            require(
                fits and view.shape[:1] == (rows,) and view.dtype == wanted[name],
                f"its output {name!r} is {view.dtype} {list(view.shape)}, which is no result of"
                f" its {rows} rows",
            )


def _views(launches: Iterable[Launch]) -> Iterator[View]:
    for launch in launches:
        yield from views_of(launch)


def _farthest(views: Iterable[View]) -> tuple[View, ...]:
    """Of views of one buffer, the one that reaches farthest for each width of an element."""
    found: dict[int, tuple[int, View]] = {}
    for view in views:
        end = end_of(view)
        width = DTYPE_BYTES[view.dtype]
        if width not in found or found[width][0] < end:
            found[width] = (end, view)
    return tuple(view for _, view in found.values())


def _input_bytes(view: View, program: Program) -> int:
    known = view.name in inputs_of(program.segment)
    if not known or STEP_INPUTS[view.name].dtype != view.dtype:
        raise Inconsistent(
            f"there is no input {view.name!r} of {view.dtype} of a {program.segment} program"
        )
    return 4 * prod(input_shape(view.name, program.bucket))


def code_of(launch: Launch) -> str:
    """What a launch runs, whatever it runs over: a host function, or a kernel of a binary."""
    if isinstance(launch, HostCall):
        return launch.function
    return f"{launch.binary}:{launch.symbol}"
