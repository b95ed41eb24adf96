"""Loads an artifact for serving and starts steps: picks programs, derives their inputs, replays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from lostwax.backends.registry import Backend
from lostwax.backends.runtime.allocation import allocated
from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
from lostwax.backends.runtime.bias_state import BiasState
from lostwax.backends.runtime.boot_check import Admission
from lostwax.backends.runtime.bound_program import (
    BoundProgram,
    Memory,
    PlaneBuffers,
    WeightBuffers,
)
from lostwax.backends.runtime.checkpoint_content import require_content
from lostwax.backends.runtime.choose_threads import StepThreads, choose_threads
from lostwax.backends.runtime.count_state import CountState
from lostwax.backends.runtime.default_pages import default_pages
from lostwax.backends.runtime.device_step import DeviceStep
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.host_pages import HostPages
from lostwax.backends.runtime.input_layout import input_bytes
from lostwax.backends.runtime.load_weights import load_weights
from lostwax.backends.runtime.mask_gate import NO_GATE, MaskGate, Masks
from lostwax.backends.runtime.mask_state import MaskState
from lostwax.backends.runtime.memory import Buffer
from lostwax.backends.runtime.ranks import Ranks
from lostwax.backends.runtime.replay_step import StepReplay
from lostwax.backends.runtime.require_functions import require_functions
from lostwax.backends.runtime.require_packages import require_packages
from lostwax.backends.runtime.require_target import require_target
from lostwax.backends.runtime.run_preflight import run_preflight
from lostwax.backends.runtime.say import say
from lostwax.backends.runtime.state_table import StateTable
from lostwax.backends.runtime.step_buffers import InputMemory
from lostwax.backends.runtime.step_programs import (
    RuntimeLimits,
    Stage,
    StepError,
    StepPrograms,
)
from lostwax.backends.runtime.step_rows import StepRows
from lostwax.backends.runtime.ticket import Held, Started, StepTicket
from lostwax.backends.runtime.usable_cores import usable_threads
from lostwax.ir.contract.artifact import Manifest, ProgramRef
from lostwax.ir.contract.biases import BIASES, biases_bytes
from lostwax.ir.contract.cache_layout import LAYOUTS
from lostwax.ir.contract.caches import CachePlane
from lostwax.ir.contract.captured import is_captured, may_be_captured
from lostwax.ir.contract.check_program import step_states
from lostwax.ir.contract.counts import COUNTS, counts_bytes
from lostwax.ir.contract.masks import MASKS, mask_words, masks_bytes
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.step import HIDDEN, StepResult
from lostwax.ir.contract.step_layout import BOXES, StepLayout
from lostwax.ir.contract.step_plan import StepPlan


class Runtime:
    """One loaded artifact. Not thread-safe: one engine loop owns it."""

    def __init__(
        self,
        reader: ArtifactReader,
        driver: Driver,
        weights: WeightBuffers,
        num_pages: int,
        ranks: Ranks,
        num_host_pages: int = 0,
    ) -> None:
        self.manifest: Manifest = reader.manifest
        self.facts: ModelFacts = reader.manifest.model
        limits: dict[str, Any] = msgspec.structs.asdict(reader.manifest.limits)
        self.limits = RuntimeLimits(**limits, num_pages=num_pages, num_host_pages=num_host_pages)
        self.ranks = ranks
        self._reader = reader
        self.driver = driver
        self._bound: dict[str, BoundProgram] = {}
        self.memory = _allocate(reader.manifest, driver, weights, num_pages)
        max_pages = -(-self.limits.max_context // self.limits.page_tokens)
        self.state = StateTable(self.limits.max_reqs, max_pages, self.limits.max_drafts)
        self._masks = MaskState(self.memory.states[MASKS], driver)
        ids = self.limits.vocab_size
        self._biases = BiasState(self.memory.states[BIASES], ids, driver)
        self._counts = CountState(self.memory.states[COUNTS], ids, driver)
        on_device = reader.manifest.step_on_device
        self.programs = StepPrograms(reader.manifest.programs, self.limits, int(on_device))
        self._host_pages: HostPages | None = None
        if num_host_pages:
            planes = by_page(reader.manifest.planes, self.memory.planes, num_pages)
            self._host_pages = HostPages(planes, num_pages, num_host_pages, driver)
        self._run_stages = StepReplay(driver, ranks, self._counts)
        self.device_step: DeviceStep | None = None
        """What enqueues steps where the device keeps the state."""
        if on_device:
            layout = StepLayout.of(reader.manifest.limits)
            self.device_step = DeviceStep(
                layout, self.memory, self.state, self._masks, self._biases, self._counts, driver,
                host_runs=reader.manifest.target.host_memory,
            )  # fmt: skip
        self._threads: StepThreads | None = None
        self._last: StepTicket | None = None
        for ref in reader.manifest.programs:
            if may_be_captured(ref.segment, ref.bucket, reader.manifest.target):
                self.bound(ref)
        if self.device_step is not None:
            self.device_step.reset()

    def bound(self, ref: ProgramRef) -> BoundProgram:
        """The program over this process's memory, bound at first use (graphs: at load)."""
        if ref.file not in self._bound:
            program = self._reader.program(ref.file)
            captured = is_captured(program, self.manifest.target)
            try:
                with self.driver.running():
                    bound = BoundProgram(program, self.memory, self.driver, captured)
            except ArtifactError as error:
                raise ArtifactError(f"{self._reader.folder / ref.file}: {error}") from error
            self._bound[ref.file] = bound
        return self._bound[ref.file]

    @property
    def overlaps(self) -> bool:
        """Whether a step runs beside the host, which may then prepare the next."""
        return self.device_step is not None and not self.manifest.target.host_memory

    @property
    def pays_by_row(self) -> bool:
        """Whether a step takes the time of its own rows: a host's kernels stop behind them."""
        return self.manifest.target.host_memory

    def submit(self, plan: StepPlan) -> StepTicket:
        """Enqueue one step, on every rank; its body alone where rows wait for masks.

        Raises StepError, before anything is changed, where no program fits, the plan does not suit
        the state that the steps before it left, or the step before waits for masks.
        """
        if self._last is not None and self._last.waits:
            raise StepError(
                "the step before waits for masks; finish its ticket before you submit another"
            )
        stages = self.programs.pick(plan)
        refusal = self.state.refusal(plan) or self._biases.refusal(plan.entering)
        refusal = refusal or self._refusal_of_moves(plan)
        if refusal:
            raise StepError(f"the {plan.entry} step is refused: {refusal}")

        def start() -> Started | Held:
            self.ranks.tell(stages, plan)
            begun = self._replay(stages, plan)
            return self._told(begun) if isinstance(begun, Held) else begun

        gate = NO_GATE
        if plan.masked:
            gate = MaskGate(plan.num_masked, self.limits.vocab_size)
        self._last = StepTicket(self._last, start, self.ranks.fail, gate)
        return self._last

    def _refusal_of_moves(self, plan: StepPlan) -> str:
        if not plan.moves:
            return ""
        if self._host_pages is None:
            return "pages are moved, and no host memory was taken for them (num_host_pages)"
        return self._host_pages.refusal(plan.moves)

    def _told(self, held: Held) -> Held:
        """The same, whose masks the other ranks hear of first."""

        def finish(masks: Masks) -> Started:
            self.ranks.tell_masks(masks)
            return held.finish(masks)

        return Held(finish)

    def run(self, plan: StepPlan) -> StepResult:
        """Submit one step without masks and wait for it. Raises StepError, what the step raised."""
        if plan.masked:
            raise StepError("rows of this step wait for masks; submit it, and finish its ticket")
        return self.submit(plan).result()

    def follow(self) -> None:
        """On ranks but the first: run what rank 0 tells, until it dismisses them."""
        refs = {ref.file: ref for ref in self.manifest.programs}
        while (told := self.ranks.receive()) is not None:
            stages = [tuple(refs[file] for file in stage) for stage in told.stages]
            begun = self._replay(stages, told.plan)
            if isinstance(begun, Held):
                words = mask_words(self.limits.vocab_size)
                masks = self.ranks.receive_masks(told.plan.num_masked, words)
                if masks is None:
                    return
                begun = begun.finish(masks)
            begun.mark.wait()

    def choose_threads(self) -> StepThreads | None:
        """Time steps on some numbers of threads and use the best from now on; return the choice.

        None, and nothing changed, where the host's threads do not compute, or where several ranks
        would have to choose together. Called before the first request: it writes into its pages.
        """
        on_host = self.driver.memory.is_host and self.manifest.target.replay == "walk"
        if not on_host or self.ranks.rank.count > 1:
            return None
        self._threads = choose_threads(
            self.run,
            self.limits,
            usable_threads(),
            self.driver.use_threads,
            one_number=self.manifest.batch_invariant,
        )
        return self._threads

    def _replay(self, stages: Sequence[Stage], plan: StepPlan) -> Started | Held:
        """Run or enqueue a step's body and head, and those of its drafts; its body alone where
        rows wait for masks."""
        if self._threads is not None:
            # Each time, since torch keeps the number by thread, and steps may come from several.
            self.driver.use_threads(self._threads.of(plan.num_rows))
        bound = [tuple(map(self.bound, stage)) for stage in stages]
        with self.driver.running():
            if self._host_pages is not None and plan.moves:
                self._host_pages.move(plan.moves)
            if self.device_step is not None:
                return self.device_step.start(bound, plan)
            self._biases.enter(plan.entering)
            self._counts.enter(plan.entering)
            rows = StepRows(plan, self.state, self.limits.page_tokens)
            self._run_stages.body(bound[0], rows.inputs)

        def finish(masks: Masks | None) -> Started:
            with self.driver.running():
                if masks is not None:
                    self._masks.write(masks)
                result = self._run_stages.finish(bound, rows, plan)
            return Started(self.driver.mark(), lambda: result)

        return Held(finish) if plan.masked else finish(None)


def _allocate(manifest: Manifest, driver: Driver, weights: WeightBuffers, num_pages: int) -> Memory:
    planes: PlaneBuffers = {
        (plane.name, layer): allocated(driver, num_pages * plane.page_bytes, "a cache plane")
        for plane in manifest.planes
        for layer in range(plane.layers)
    }
    body, head = (
        InputMemory(allocated(driver, count, "a step's inputs"), driver)
        for count in input_bytes(manifest.programs)
    )
    arena = allocated(driver, manifest.arena_bytes, "an arena")
    state = allocated(driver, manifest.state_bytes, "a state")
    zeroed = allocated(driver, manifest.zeroed_bytes, "a zeroed workspace")
    masks = allocated(driver, masks_bytes(manifest.limits), "a state")
    biases = allocated(driver, biases_bytes(manifest.limits), "a state")
    counts = allocated(driver, counts_bytes(manifest.limits), "a state")
    states = {HIDDEN: state, MASKS: masks, BIASES: biases, COUNTS: counts}
    for name, count in step_states(manifest).items():
        states[name] = allocated(driver, count, "a step's state", host=name in BOXES)
    return Memory(arena, body, head, weights, planes, states, zeroed)


def by_page(planes: Sequence[CachePlane], buffers: PlaneBuffers, num_pages: int) -> list[Buffer]:
    """The planes' memory in pieces in which a page's bytes lie together: a plane whose parts are
    apart has one for each part."""
    pieces: list[Buffer] = []
    for plane in planes:
        form = LAYOUTS[plane.layout]
        for layer in range(plane.layers):
            buffer = buffers[plane.name, layer]
            if form.parts_apart:
                rows = num_pages * plane.page_tokens
                start = 0
                for width in form.part_bytes(plane.row):
                    pieces.append(buffer[start : start + rows * width])
                    start += rows * width
            else:
                pieces.append(buffer)
    return pieces


def load(
    artifact: Path,
    *,
    checkpoint: Path | None = None,
    num_pages: int | None = None,
    num_host_pages: int = 0,
    threads: int | None = None,
    admission: Admission | None = None,
    phases: Callable[[str], None] = lambda _: None,
    warn: Callable[[str], None] = say,
    extra_backends: tuple[Backend, ...] = (),
) -> Runtime:
    """Load an artifact on its target's device; `threads` sets on how many threads a host computes.
    `num_host_pages` pages of host memory take in what prefix pages hold that give way.

    `admission` runs the golden probes where they have not run on this device; None trusts the
    artifact. `phases` is told when each phase begins, `warn` what is installed other than the
    artifact was compiled for. `extra_backends` join those installed.

    Raises ArtifactError, CheckpointMismatch, DeviceUnavailable, NotEnoughMemory, RankError,
    MissingPackage, WrongKernel, Unproven, each with the remedy.
    """
    phases("read and verify artifact")
    reader = ArtifactReader(artifact)
    manifest = reader.manifest
    found = require_target(artifact, manifest.target, extra_backends)
    reader.check()
    require_packages(manifest.requires)

    def torch_begins() -> None:
        phases("import torch")

    functions = require_functions(reader, found.kernels, torch_begins) if found.executes else ()
    if found.executes and not functions and not manifest.target.host_memory:
        torch_begins()  # which is its driver's memory
    ranks = Ranks.join(manifest.world_size)
    compiled = {k.binary: k for k in manifest.kernels}
    driver: Driver = found.load(found.driver)(manifest.target, reader.kernel, compiled)
    if threads is not None:
        driver.use_threads(threads)
    run_preflight(found, manifest, functions, warn)
    if admission is not None and found.executes:  # the backend's say, never the artifact's
        phases("golden probes")
        admission.admit(reader, driver, found.kernels)
    phases("load weights")
    folder = reader.checkpoint(checkpoint)
    note = reader.note()
    require_content(folder, note.files if note else {})
    weights = load_weights(reader.weight_plan(), folder, driver, ranks.rank)
    phases("allocate caches, bind programs")
    num_pages = num_pages or default_pages(manifest)
    ranks.meet(f"{manifest.digest} {num_pages} {num_host_pages}")
    return Runtime(reader, driver, weights, num_pages, ranks, num_host_pages)
