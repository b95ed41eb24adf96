"""What an artifact chose, each once, found again in its graphs. Runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lostwax.backends.lowering import Lowering
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.plan.report_choices import site_of
from lostwax.backends.plan.state_rows import StateRows
from lostwax.backends.plan.variants import Variant
from lostwax.backends.proof.blame_artifact import blaming
from lostwax.backends.read_graph import read_graph
from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
from lostwax.ir.contract.artifact import ProgramRef
from lostwax.ir.contract.choice import Choices, RegionChoice
from lostwax.ir.contract.program import Bucket
from lostwax.ir.region import find_matches


def chosen_candidates(
    reader: ArtifactReader,
    choices: Choices,
    lowerings: Mapping[str, Lowering],
    before: Callable[[Bucket], bool] | None = None,
) -> Iterator[tuple[Candidate, RegionChoice]]:
    """What was chosen, once for each segment and probe: these tell knobs and binaries apart.

    In its largest program, of those that `before` says come first where any of them chose it.
    """
    seen: set[str] = set()
    target = reader.manifest.target
    manifest = reader.manifest
    states = StateRows.of(manifest.limits, [ref.bucket for ref in manifest.programs])
    for ref in _sizes(reader, before):
        graph = read_graph(reader, Variant.of(ref).name)
        context = ProgramContext(graph, target, ref.segment, ref.bucket, ref.guard, states)
        for choice in choices.programs[Path(ref.file).stem]:
            key = _site(ref, choice)
            if key is None:
                continue
            with blaming(reader, choice.lowering):
                candidate = _candidate(context, choice, lowerings)
            if key not in seen:
                seen.add(key)
                yield candidate, choice


def count_sites(artifact: Path) -> int:
    """How many results `certify_artifact` has on a device. Raises ArtifactError."""
    reader = ArtifactReader(artifact)
    programs = reader.structure("choices.json", Choices).programs
    found = (_site(ref, c) for ref in _sizes(reader, None) for c in programs[Path(ref.file).stem])
    return len({site for site in found if site is not None})


def _site(ref: ProgramRef, choice: RegionChoice) -> str | None:
    """What is certified once; None for what ranks exchange, which means nothing on one of them."""
    is_exchange = any(op.startswith("dist.") for op in choice.ops)
    return None if is_exchange else f"{ref.segment} {choice.probe}"


def _sizes(reader: ArtifactReader, before: Callable[[Bucket], bool] | None) -> Iterator[ProgramRef]:
    """Programs, those of `before` first, and the largest of each: the first of a kind counts."""

    def order(ref: ProgramRef) -> tuple[bool, int, int, str]:
        is_behind = before is not None and not before(ref.bucket)
        return (is_behind, -ref.bucket.most_rows, ref.bucket.pages, ref.file)

    yield from sorted(reader.manifest.programs, key=order)


def _candidate(
    context: ProgramContext, choice: RegionChoice, lowerings: Mapping[str, Lowering]
) -> Candidate:
    block, lowering = context.blocks[choice.block], lowerings.get(choice.lowering)
    if lowering is None:
        raise ArtifactError(
            f"this lostwax has no lowering {choice.lowering!r}, which the artifact chose; recompile"
        )
    for match in find_matches(lowering.pattern, block.function.body.block):
        if match.digest() == choice.region and site_of(block, match) == choice.site:
            return Candidate(context, block, match, lowering)
    raise ArtifactError(f"{choice.lowering} no longer matches {choice.ops}; recompile the artifact")
