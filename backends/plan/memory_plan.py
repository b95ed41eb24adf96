"""What one rank of an artifact takes of its device, known before boot. Allocates nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.default_pages import default_pages
from lostwax.backends.runtime.input_layout import input_bytes
from lostwax.ir.contract.artifact import Manifest
from lostwax.ir.contract.biases import biases_bytes
from lostwax.ir.contract.caches import bytes_per_page
from lostwax.ir.contract.captured import is_captured
from lostwax.ir.contract.check_program import step_states
from lostwax.ir.contract.counts import counts_bytes
from lostwax.ir.contract.masks import masks_bytes
from lostwax.ir.contract.program import HostCall, KernelLaunch, Program, launches_of
from lostwax.ir.contract.step_layout import BOXES

GRAPH_NODE_BYTES = 4096
"""Device memory of one launch in a captured graph: an estimate, which no device has confirmed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes of one rank. `planes` gives each cache plane's bytes a page, over its layers.

    `state` are hiddens, masks, biases, counts, the sequences' state. `zeroed` is the workspace that
    launches leave zero. `host_calls` is the most that one host call allocates outside the arena,
    `scratch` what a thread of a processor's kernels takes beside their operands: one thread's, as
    how many there are is known at the start. `graphs` counts the captured programs, `graph_bytes`
    is an estimate. `libraries` is the target's fact `library_bytes`, `device` its `memory_bytes`:
    what the smallest device of the kind has.
    """

    target: str
    ranks: int
    weights: int
    arena: int
    state: int
    inputs: int
    zeroed: int
    host_calls: int
    scratch: int
    planes: dict[str, int]
    num_pages: int
    page_tokens: int
    graphs: int
    graph_bytes: int
    libraries: int
    device: int

    @property
    def page_bytes(self) -> int:
        """Bytes of one page id over all planes and layers."""
        return sum(self.planes.values())

    @property
    def cache(self) -> int:
        """Bytes of all planes."""
        return self.num_pages * self.page_bytes

    @property
    def total(self) -> int:
        """Everything on the device."""
        held = self.weights + self.arena + self.state + self.inputs + self.cache
        beside = self.zeroed + self.host_calls + self.scratch
        return held + beside + self.graph_bytes + self.libraries

    @property
    def beyond(self) -> int:
        """Bytes of the total that the smallest device of the kind does not have."""
        return max(self.total - self.device, 0)


def _launches(program: Program) -> int:
    blocks = {name: len(launches) for name, launches in program.blocks.items()}
    around = len(program.prepare) + len(program.finish)
    return around + sum(blocks[call.block] for call in program.calls)


def _allocates(program: Program) -> int:
    calls = (x.allocates for x in launches_of(program) if isinstance(x, HostCall))
    return max(calls, default=0)


def _kept(manifest: Manifest) -> int:
    """Bytes of what the device keeps of steps; the boxes lie in the host's memory, which is the
    device's own where that is the host."""
    of_host = manifest.target.host_memory
    return sum(n for name, n in step_states(manifest).items() if of_host or name not in BOXES)


def _scratch(program: Program) -> int:
    kernels = (x.shared_bytes for x in launches_of(program) if isinstance(x, KernelLaunch))
    return max(kernels, default=0)


def plan_memory(artifact: Path, num_pages: int | None = None) -> MemoryPlan:
    """The plan of an artifact, with as many pages as `serve` would take unless given."""
    reader = ArtifactReader(artifact)
    manifest, target = reader.manifest, reader.manifest.target
    programs = [reader.program(ref.file) for ref in manifest.programs]
    captured = [p for p in programs if is_captured(p, target)]
    pages = num_pages or default_pages(manifest)
    planes = {p.name: bytes_per_page((p,)) for p in manifest.planes}
    return MemoryPlan(
        target=target.name,
        ranks=manifest.world_size,
        weights=manifest.weight_bytes,
        arena=manifest.arena_bytes,
        state=manifest.state_bytes
        + masks_bytes(manifest.limits)
        + biases_bytes(manifest.limits)
        + counts_bytes(manifest.limits)
        + _kept(manifest),
        inputs=sum(input_bytes(manifest.programs)),
        zeroed=manifest.zeroed_bytes,
        host_calls=max(map(_allocates, programs)),
        scratch=max(map(_scratch, programs)) if target.host_memory else 0,
        planes=planes,
        num_pages=pages,
        page_tokens=manifest.limits.page_tokens,
        graphs=len(captured),
        graph_bytes=GRAPH_NODE_BYTES * sum(map(_launches, captured)),
        libraries=target.library_bytes,
        device=target.memory_bytes,
    )
