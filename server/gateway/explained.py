"""Says in few words what an artifact chose: `/explain`'s answers. Knows files, no HTTP.

As a program of its own, `explained.py ARTIFACT [CERTIFICATES]`: the choices of 200 programs are
10 MB of JSON, which to read would hold the gateway's interpreter while clients wait. It prints a
line with the Explained, then for each program that is shown two: its name and its ExplainedChoices.
Of an artifact that cannot be read it says why, in a line on standard error, and ends with
UNREADABLE.
"""

from __future__ import annotations

import os
import resource
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from lostwax.backends.runtime.artifact_reader import ArtifactError, ArtifactReader
from lostwax.backends.runtime.certificates import certificates_file, read_certificates
from lostwax.backends.runtime.say import say
from lostwax.ir.contract.artifact import Manifest, ProgramRef
from lostwax.ir.contract.choice import Choices, RegionChoice
from lostwax.ir.contract.foreign_file import DAMAGE, BadFile, reason
from lostwax.ir.contract.one_line import one_line
from lostwax.ir.contract.probe import Certificates, Evidence
from lostwax.server.gateway.explain_answer import (
    UNREADABLE,
    Explained,
    ExplainedBlock,
    ExplainedChoice,
    ExplainedChoices,
    ExplainedLoser,
    ExplainedProgram,
    ExplainedProof,
)

MAX_BYTES = 16 << 20
"""Of all programs' choices together, which the gateway keeps; those of 50 programs take 1.2 MB."""
MAX_LOSERS = 12
"""Of one choice, in the order in which they were tried."""
MAX_REASON_CHARS = 300
MAX_MEMORY_BYTES = 4 << 30
NICENESS = 5


def lines(reader: ArtifactReader, certificates: Path | None) -> Iterator[bytes]:
    """What is printed; ArtifactError where the artifact is damaged."""
    choices = reader.structure("choices.json", Choices)
    layers = layers_of(reader.weight_plan().groups)
    proof = _proof(reader, certificates)
    evidence = proof.evidence if proof else {}
    left, details = MAX_BYTES, list[bytes]()
    programs = list[ExplainedProgram]()
    for ref in reader.manifest.programs:
        name = Path(ref.file).stem
        chosen = in_order(choices.programs[name], layers, evidence)
        detail = msgspec.json.encode(ExplainedChoices(name=name, choices=chosen))
        is_shown = len(detail) <= left
        programs.append(_program(ref, name, chosen, is_shown))
        if is_shown:
            left -= len(detail)
            details += [name.encode(), detail]
    blocks = dict.fromkeys(c.block for each in choices.programs.values() for c in each)
    shown = [ExplainedBlock(name=block, layers=layers.get(block, 1)) for block in blocks]
    yield msgspec.json.encode(_whole(reader.manifest, choices, proof, shown, programs))
    yield from details


def layers_of(groups: Mapping[str, str]) -> Counter[str]:
    """How many layers are of each block kind, by the groups of the weights' prefixes
    (`model.layers.3.`). What has no prefix of its own is no layer."""
    return Counter(group for prefix, group in groups.items() if prefix)


def in_order(
    choices: tuple[RegionChoice, ...], layers: Mapping[str, int], evidence: Mapping[str, Evidence]
) -> list[ExplainedChoice]:
    """A program's choices as its blocks run: each block's by their place in its function."""
    blocks = list(dict.fromkeys(choice.block for choice in choices))
    order = {name: at for at, name in enumerate(sorted(blocks, key=_rank))}
    placed = sorted(choices, key=lambda choice: (order[choice.block], choice.site))
    return [_choice(c, layers.get(c.block, 1), evidence.get(c.probe)) for c in placed]


def _rank(block: str) -> int:
    """Where a block kind stands in a body: embedding first, final norm last."""
    known = ("embed", "dense", "moe", "mtp", "norm")
    return known.index(block) if block in known else len(known)


def _choice(choice: RegionChoice, layers: int, found: Evidence | None) -> ExplainedChoice:
    return ExplainedChoice(
        block=choice.block,
        layers=layers,
        ops=list(choice.ops),
        lowering=choice.lowering,
        knobs=choice.knobs,
        us=round(choice.us, 3),
        source=choice.source,
        estimate_us=round(choice.estimate_us, 3),
        prepared_us=round(choice.prepared_us, 3),
        portable=choice.portable,
        proof=None if found is None else _proven(found),
        losers=[
            ExplainedLoser(
                lowering=loser.lowering,
                reason=one_line(loser.reason, MAX_REASON_CHARS),
                us=None if loser.us is None else round(loser.us, 3),
            )
            for loser in choice.losers[:MAX_LOSERS]
        ],
        num_losers=len(choice.losers),
    )


def _proven(found: Evidence) -> ExplainedProof:
    return ExplainedProof(state=found.state, max_error=found.max_error, rms_error=found.rms_error)


def _proof(reader: ArtifactReader, folder: Path | None) -> Certificates | None:
    """The evidence of this very artifact, None where there is none to be read."""
    try:
        found = read_certificates(certificates_file(reader, folder))
    except BadFile:  # the engine measures it again
        return None
    return found if found is not None and found.artifact == reader.manifest.digest else None


def _program(
    ref: ProgramRef, name: str, chosen: list[ExplainedChoice], shown: bool
) -> ExplainedProgram:
    prices = [(choice.us * choice.layers, choice.source == "record") for choice in chosen]
    return ExplainedProgram(
        name=name,
        segment=ref.segment,
        guard=str(ref.guard),
        tokens=ref.bucket.tokens,
        reqs=ref.bucket.reqs,
        pages=ref.bucket.pages,
        rows=ref.bucket.rows,
        us=round(sum(us for us, _ in prices), 3),
        measured_us=round(sum(us for us, is_measured in prices if is_measured), 3),
        num_choices=len(chosen),
        shown=shown,
    )


def _whole(
    manifest: Manifest,
    choices: Choices,
    proof: Certificates | None,
    blocks: list[ExplainedBlock],
    programs: list[ExplainedProgram],
) -> Explained:
    return Explained(
        artifact=manifest.digest,
        model=manifest.model.name,
        target=manifest.target.name,
        ranks=manifest.world_size,
        activations=one_line(choices.activations, MAX_REASON_CHARS),
        device=proof.device if proof else None,
        blocks=blocks,
        programs=programs,
    )


def main() -> None:
    """Print what an artifact chose."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = MAX_MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MAX_MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    os.nice(NICENESS)  # answers that are on their way come first
    folder, *certificates = map(Path, sys.argv[1:])
    try:
        printed = [*lines(ArtifactReader(folder), certificates[0] if certificates else None)]
    except (ArtifactError, BadFile) as error:
        say(error)
        raise SystemExit(UNREADABLE) from None
    except (OSError, *DAMAGE) as error:
        say(f"{folder} cannot be read ({reason(error)}); `lostwax verify` it, or recompile")
        raise SystemExit(UNREADABLE) from None
    sys.stdout.buffer.writelines(line + b"\n" for line in printed)


if __name__ == "__main__":
    main()
