"""Loads an artifact for serving and runs steps: pick a program, fill its inputs, replay it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import torch

from lostwax.backends.registry import Backend, backends
from lostwax.backends.runtime.allocation import allocated
from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
from lostwax.backends.runtime.boot_check import Admission
from lostwax.backends.runtime.bound_program import BoundProgram, Memory, PlaneBuffers
from lostwax.backends.runtime.checkpoint_content import require_content
from lostwax.backends.runtime.choose_threads import StepThreads, choose_threads
from lostwax.backends.runtime.default_pages import default_pages
from lostwax.backends.runtime.driver import Driver
from lostwax.backends.runtime.input_layout import input_offsets
from lostwax.backends.runtime.load_weights import WeightBuffers, load_weights
from lostwax.backends.runtime.ranks import Ranks
from lostwax.backends.runtime.require_packages import require_packages
from lostwax.backends.runtime.usable_cores import usable_threads
from lostwax.ir.contract.artifact import Manifest, ProgramRef
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.program import StepFacts
from lostwax.ir.contract.step import HIDDEN, StepBatch, StepResult

ONE_THREAD_BYTES = 1 << 30
"""Weights of less are made by one thread, at about a gigabyte a second."""


class StepError(ValueError):
    """No program of the artifact fits the step; the message gives its size and the limits."""


class RuntimeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The artifact's limits with the number of cache pages of this process (page 0 is trash)."""

    max_tokens: int
    max_reqs: int
    max_context: int
    max_score_rows: int
    page_tokens: int
    vocab_size: int
    max_drafts: int
    num_pages: int


def facts_of(batch: StepBatch) -> StepFacts:
    """What guards may ask about a batch."""
    lengths = [e - s for s, e in zip(batch.q_starts, batch.q_starts[1:], strict=False)]
    return StepFacts(
        num_reqs=len(batch.kv_lens),
        max_q=max(lengths),
        total_q=len(batch.tokens),
        max_kv=max(batch.kv_lens),
        total_kv=sum(batch.kv_lens),
    )


class Runtime:
    """One loaded artifact. Not thread-safe: one engine loop owns it."""

    def __init__(
        self,
        reader: ArtifactReader,
        driver: Driver,
        weights: WeightBuffers,
        num_pages: int,
        ranks: Ranks,
    ) -> None:
        self.manifest: Manifest = reader.manifest
        self.facts: ModelFacts = reader.manifest.model
        limits: dict[str, Any] = msgspec.structs.asdict(reader.manifest.limits)
        self.limits = RuntimeLimits(**limits, num_pages=num_pages)
        self.ranks = ranks
        self._reader = reader
        self._driver = driver
        self._bound: dict[str, BoundProgram] = {}
        self.memory = _allocate(reader.manifest, driver, weights, num_pages)
        self._shared_inputs = self.memory.inputs is self.memory.host_inputs
        self._threads: StepThreads | None = None
        target = reader.manifest.target
        if target.replay == "graph":
            for ref in reader.manifest.programs:
                if ref.entry in target.graph_entries:
                    self.bound(ref)

    def pick(self, batch: StepBatch) -> ProgramRef:
        """The first program, in the manifest's order, whose bucket and guard admit the batch."""
        facts = facts_of(batch)
        pages = -(-facts.max_kv // self.limits.page_tokens)
        for ref in self.manifest.programs:
            b = ref.bucket
            if (
                ref.entry == batch.entry
                and b.scores == batch.scores
                and facts.total_q <= b.tokens
                and (ref.entry != "decode" or facts.max_q <= b.rows_a_req)
                and facts.num_reqs <= b.reqs
                and pages <= b.pages
                and len(batch.logit_rows) <= b.rows
                and ref.guard.holds(facts)
            ):
                return ref
        raise StepError(f"no {batch.entry} program fits {facts} with {self.limits}")

    def bound(self, ref: ProgramRef) -> BoundProgram:
        """The program over this process's memory, bound at first use (graphs: at load)."""
        if ref.file not in self._bound:
            target = self.manifest.target
            captured = target.replay == "graph" and ref.entry in target.graph_entries
            program = self._reader.program(ref.file)
            try:
                with torch.inference_mode():
                    bound = BoundProgram(program, self.memory, self._driver, captured)
            except ArtifactError as error:
                raise ArtifactError(f"{self._reader.folder / ref.file}: {error}") from error
            self._bound[ref.file] = bound
        return self._bound[ref.file]

    def run(self, batch: StepBatch) -> StepResult:
        """Run one step, on every rank. Raises StepError where no program fits."""
        ref = self.pick(batch)
        self.ranks.tell(ref.file, batch)
        try:
            return self._replay(ref, batch)
        except Exception:
            self.ranks.fail()
            raise

    def follow(self) -> None:
        """On ranks but the first: run what rank 0 tells, until it dismisses them."""
        refs = {ref.file: ref for ref in self.manifest.programs}
        while (told := self.ranks.receive()) is not None:
            self._replay(refs[told.program], told.batch)

    def choose_threads(self) -> StepThreads | None:
        """Time steps on some numbers of threads and use the best from now on; return the choice.

        None, and nothing changed, where the host's threads do not compute, or where several ranks
        would have to choose together. Called before the first request: it writes into its pages.
        """
        on_host = self._driver.device.type == "cpu" and self.manifest.target.replay == "walk"
        if not on_host or self.ranks.rank.count > 1:
            return None
        self._threads = choose_threads(
            self.run,
            self.limits,
            usable_threads(),
            torch.set_num_threads,
            one_number=self.manifest.batch_invariant,
        )
        return self._threads

    def _replay(self, ref: ProgramRef, batch: StepBatch) -> StepResult:
        if self._threads is not None:
            # Each time, since torch keeps the number by thread, and steps may come from several.
            torch.set_num_threads(self._threads.of(len(batch.tokens)))
        program = self.bound(ref)
        with torch.inference_mode():
            program.step.fill(batch)
            if not self._shared_inputs:
                count = program.step.num_bytes
                self.memory.inputs[:count].copy_(self.memory.host_inputs[:count], non_blocking=True)
            program.replay()
            self._driver.synchronize()
            rows = len(batch.logit_rows)
            found: dict[str, Any] = {n: t[:rows].tolist() for n, t in program.outputs.items()}
        return StepResult(program=program.program.name, **found)


def _allocate(manifest: Manifest, driver: Driver, weights: WeightBuffers, num_pages: int) -> Memory:
    planes: PlaneBuffers = {
        (plane.name, layer): allocated(driver, num_pages * plane.page_bytes, "a cache plane")
        for plane in manifest.planes
        for layer in range(plane.layers)
    }
    input_bytes = max(input_offsets(ref.bucket)[1] for ref in manifest.programs)
    inputs = allocated(driver, input_bytes, "a step's inputs")
    on_host = driver.device.type == "cpu"
    host = inputs if on_host else torch.zeros(input_bytes, dtype=torch.uint8, pin_memory=True)
    arena = allocated(driver, manifest.arena_bytes, "an arena")
    state = allocated(driver, manifest.state_bytes, "a state")
    return Memory(arena, inputs, host, weights, planes, {HIDDEN: state})


@contextmanager
def _few_threads(weight_bytes: int) -> Generator[None]:
    """One thread for small weights: hundreds of short operators wait for each other's threads, a
    tenth of a second on idle cores and many seconds on busy ones."""
    threads = torch.get_num_threads()
    if weight_bytes < ONE_THREAD_BYTES:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def load(
    artifact: Path,
    *,
    checkpoint: Path | None = None,
    num_pages: int | None = None,
    threads: int | None = None,
    admission: Admission | None = None,
    phases: Callable[[str], None] = lambda _: None,
    extra_backends: tuple[Backend, ...] = (),
) -> Runtime:
    """Load an artifact on its target's device; `threads` sets torch's threads of this process.

    `admission` runs the golden probes where they have not run on this device; None trusts the
    artifact. `phases` is told when each phase begins. `extra_backends` join those installed.

    Raises ArtifactError, CheckpointMismatch, DeviceUnavailable, NotEnoughMemory, RankError,
    MissingPackage, WrongKernel, Unproven, each with the remedy.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    phases("read and verify artifact")
    reader = ArtifactReader(artifact)
    manifest = reader.manifest
    found = backends(extra_backends).get(manifest.target.backend)
    if found is None:
        raise ArtifactError(
            f"{artifact} was compiled for {manifest.target.name}, and no installed package provides"
            f" the target folder {manifest.target.backend!r}"
        )
    reader.check()
    require_packages(manifest.requires)
    ranks = Ranks.join(manifest.world_size)
    compiled = {k.binary: k for k in manifest.kernels}
    driver: Driver = found.load(found.driver)(manifest.target, reader.kernel, compiled)
    if admission is not None and found.executes:  # the backend's say, never the artifact's
        phases("golden probes")
        admission.admit(reader, driver, found.kernels)
    phases("load weights")
    folder = reader.checkpoint(checkpoint)
    note = reader.note()
    require_content(folder, note.files if note else {})
    with _few_threads(manifest.weight_bytes):
        weights = load_weights(reader.weight_plan(), folder, driver, ranks.rank)
    phases("allocate caches, bind programs")
    num_pages = num_pages or default_pages(manifest)
    ranks.meet(f"{manifest.digest} {num_pages}")
    return Runtime(reader, driver, weights, num_pages, ranks)
