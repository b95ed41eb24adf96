"""Who may read the masks of an artifact, and that memory is planned for them."""

from __future__ import annotations

import msgspec
import pytest
from small_fixtures import Compiled

from lostwax.backends.plan.memory_plan import plan_memory
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.ir.contract.biases import biases_bytes
from lostwax.ir.contract.canonical import canonical
from lostwax.ir.contract.check_program import ProgramCheck
from lostwax.ir.contract.check_views import Inconsistent
from lostwax.ir.contract.check_weights import weight_sizes
from lostwax.ir.contract.counts import counts_bytes
from lostwax.ir.contract.masks import masks_bytes, masks_shape
from lostwax.ir.contract.program import Program


def test_masks_are_read_whole_and_by_heads_that_sample(torch_artifact: Compiled) -> None:
    reader = ArtifactReader(torch_artifact.artifact)
    manifest = reader.manifest
    weights = weight_sizes(reader.weight_plan())
    limits = msgspec.structs.replace(manifest.limits, max_reqs=1)
    fewer = msgspec.structs.replace(manifest, limits=limits)
    readers: set[str] = set()
    for ref in manifest.programs:
        program = reader.program(ref.file)
        ProgramCheck(manifest, weights)(program, ref)
        if b'"masks"' in canonical(program):
            readers.add(ref.segment)
            with pytest.raises(
                Inconsistent, match=r"of the (biases|counts|masks), of which there are [124] of"
            ):
                ProgramCheck(fewer, weights)(program, ref)
        if ref.segment in ("pick", "decode"):
            text = canonical(program).replace(b'"hidden"', b'"masks"')
            swapped = msgspec.json.decode(text, type=Program)
            with pytest.raises(
                Inconsistent, match=f"a {ref.segment} program takes f32 .* of the masks"
            ):
                ProgramCheck(manifest, weights)(swapped, ref)
    assert readers == {"sample", "score"}


def test_their_memory_is_counted(torch_artifact: Compiled) -> None:
    limits = torch_artifact.manifest.limits
    assert masks_shape(limits) == (2, 2)
    planned = plan_memory(torch_artifact.artifact).state
    of_heads = masks_bytes(limits) + biases_bytes(limits) + counts_bytes(limits)
    assert planned == torch_artifact.manifest.state_bytes + of_heads
