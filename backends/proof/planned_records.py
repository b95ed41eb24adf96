"""Records of what an artifact chose and nothing has run: all that is known without its device.

Their state is `compiled`, they have no error and no time. So the way of a report is the same on a
machine that lacks the device alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lostwax.backends.lowering import Lowering
from lostwax.backends.proof.blame_artifact import blaming
from lostwax.backends.proof.chosen_candidates import chosen_candidates
from lostwax.backends.proof.run_alone import launches_alone
from lostwax.backends.proof.taken_kernels import TakenKernels
from lostwax.backends.proof.tool_versions import compiled_with
from lostwax.backends.records.record_key import record_key
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.backends.runtime.require_target import require_target
from lostwax.ir.contract.choice import Choices
from lostwax.ir.contract.record import Certificate, Record


def planned_records(artifact: Path) -> Iterator[Record]:
    """A record of every chosen lowering, once for each segment and type, bound to its binaries.

    Its SKU is the target's architecture: no device measured it. Raises ArtifactError.
    """
    reader = ArtifactReader(artifact)
    reader.check()
    target = reader.manifest.target
    backend = require_target(reader.folder, target)
    all_lowerings: tuple[Lowering, ...] = backend.load(backend.lowerings)(target)
    lowerings = {lowering.name: lowering for lowering in all_lowerings}
    choices = reader.structure("choices.json", Choices)
    versions = compiled_with(reader.manifest, backend)
    for candidate, choice in chosen_candidates(reader, choices, lowerings):
        with blaming(reader, choice.lowering):
            kernels = TakenKernels(reader.manifest.kernels, {}, target)
            launches_alone(candidate, kernels, choice.knobs)
        yield Record(
            key=record_key(candidate, target.arch),
            knobs=choice.knobs,
            certificate=Certificate(state="compiled", tool_versions=versions).bound_to(
                kernels.digest()
            ),
        )
