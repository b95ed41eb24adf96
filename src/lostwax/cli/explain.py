"""`lostwax explain`: what was chosen for each op, what lost and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import chain
from pathlib import Path

import msgspec

from lostwax.backends.runtime.say import result_json, result_lines
from lostwax.cli.named_paths import Artifact, Folder
from lostwax.cli.option_types import Json, OptionRefused
from lostwax.cli.wrapped import wrapped
from lostwax.ir.contract.artifact import Manifest, ProgramRef
from lostwax.ir.contract.choice import Choices, RegionChoice
from lostwax.ir.contract.probe import STEP_EVIDENCE, Certificates, Evidence
from lostwax.ir.contract.program import SEGMENTS, Segment
from lostwax.ir.contract.step_layout import STEP_OP, step_launches


class UnknownOp(ValueError):
    """No program of the artifact runs this op."""


class UnknownProgram(ValueError):
    """The artifact has no program of this name."""


def explain(
    artifact: Artifact,
    op: str | None = None,
    /,
    *,
    segment: Segment | None = None,
    program: str | None = None,
    certificates: Folder | None = None,
    json_: Json = False,
) -> None:
    """Print the chosen lowering of each op, its price and proof, each loser and why it lost.

    A price is measured (record) or estimated; a proof is what the golden probes showed on the
    device where the artifact was first served.

    Parameters
    ----------
    artifact
        The artifact folder.
    op
        Only this op, such as mla.attend: then every program's choice, and where it flips.
    segment
        Only programs of this segment: extend, decode, draft, or a head: pick, sample, score.
    program
        Only this program (a file name of the artifact's programs/, without .json).
    certificates
        The folder that `serve --certificates` keeps its evidence in (default: the artifact).
    json_
        Print all recorded choices as JSON.
    """
    from lostwax.backends.runtime.artifact_reader import ArtifactReader
    from lostwax.backends.runtime.certificates import certificates_file, read_certificates
    from lostwax.ir.contract.foreign_file import BadFile

    reader = ArtifactReader(artifact)
    if json_ and (op or segment or program):
        raise OptionRefused("--json prints all choices; leave OP, --segment and --program out")
    if json_:
        result_json(msgspec.to_builtins(reader.structure("choices.json", Choices)), indent=1)
        return
    choices = reader.structure("choices.json", Choices)
    refs = {Path(r.file).stem: r for r in reader.manifest.programs}
    if program is not None and program not in refs:
        raise UnknownProgram(
            f"no program {program!r}.{_hint(program, refs)} It has {len(refs)}, one a file of"
            f" {artifact / 'programs'}"
        )
    kept = {
        name: ref
        for name, ref in refs.items()
        if segment in (None, ref.segment) and program in (None, name)
    }
    if not kept:
        raise UnknownProgram(f"{artifact} has no program {program or ''} of the segment {segment}")
    try:
        proof = read_certificates(certificates_file(reader, certificates))
    except BadFile:  # `serve` measures it again
        proof = None
    if proof is not None and proof.artifact != reader.manifest.digest:
        proof = None
    if op is not None and op.startswith(STEP_OP):
        lines = _step(op, reader.manifest, kept, proof)
    elif op is not None:
        around = _around() if reader.manifest.step_on_device else ()
        lines = _one_op(choices, kept, op, proof.evidence if proof else {}, around)
    else:
        lines = (*_tables(choices, kept), *_proofs(choices, proof))
    for line in lines:
        result_lines(wrapped(line))


def _proofs(choices: Choices, proof: Certificates | None) -> Iterator[str]:
    """What is known of all lowerings together."""
    probed = {c.probe for each in choices.programs.values() for c in each if c.probe}
    if proof is not None:
        executed = sum(proof.evidence[p].state == "executed" for p in probed & set(proof.evidence))
        yield f"proofs: {executed} of {len(probed)} lowerings executed on {proof.device}"
    elif probed:
        yield f"proofs: 0 of {len(probed)} lowerings executed: the first `serve` runs their probes"


def _hint(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _price(choice: RegionChoice) -> str:
    price = f"{choice.us:.2f} us ({choice.source})"
    if choice.source == "record" and choice.estimate_us:
        price += f", estimated {choice.estimate_us:.2f} us"
    if choice.prepared_us:
        price += f", {choice.prepared_us:.2f} us of it once a step"
    return price


def _proof(choice: RegionChoice, evidence: Mapping[str, Evidence]) -> str:
    found = evidence.get(choice.probe)
    if found is None:
        return "compiled, never ran here"
    if found.max_error is None or found.rms_error is None:
        return f"{found.state}, never ran here: {found.reason}"
    sets = "" if found.agreement is None else f", {found.agreement:.1%} of rows choose alike"
    return f"{found.state}, error {found.max_error:.1e} max, {found.rms_error:.1e} RMS{sets}"


Line = tuple[str, str]
"""A lowering and the ops that it covers."""


def _lines(choices: Iterable[RegionChoice], block: str) -> Counter[Line]:
    return Counter((c.lowering, " + ".join(c.ops)) for c in choices if c.block == block)


def _print(sign: str, lines: Counter[Line]) -> Iterator[str]:
    for (lowering, ops), count in lines.items():
        times = f"{count}x" if count > 1 else ""
        yield f"  {sign} {lowering:<34} {times:>3} {ops}"


def _tables(choices: Choices, refs: dict[str, ProgramRef]) -> Iterator[str]:
    """Each block kind once; of programs that chose otherwise, only what differs."""
    if choices.activations:
        yield f"activations: {choices.activations}"
    blocks = dict.fromkeys(c.block for name in refs for c in choices.programs[name])
    for block in blocks:
        same: dict[frozenset[tuple[Line, int]], tuple[Counter[Line], list[str]]] = {}
        for name in refs:
            lines = _lines(choices.programs[name], block)
            if lines:
                same.setdefault(frozenset(lines.items()), (lines, []))[1].append(name)
        (first, names), *others = same.values()
        where = ", ".join(names) if others else f"all {len(names)} programs that run it"
        yield f"{block} in {where}:"
        yield from _print(" ", first)
        for lines, names in others:
            yield f"{block} in {', '.join(names)}, unlike the first:"
            yield from _print("-", first - lines)
            yield from _print("+", lines - first)
    for group, stored in choices.storage.items():
        kept = [s for s in stored if "+" in s or "@" in s]
        yield f"weights of {group}: {', '.join(kept) or 'row-major, as in the checkpoint'}"


def _one_op(
    choices: Choices,
    refs: dict[str, ProgramRef],
    op: str,
    evidence: Mapping[str, Evidence],
    around: Iterable[str],
) -> Iterator[str]:
    """Every program's choice for one op, with losers, then where the choice flips.

    `around`: the launches of the step, which may be asked for, too.
    """
    chosen = {o for c in choices.programs.values() for r in c for o in r.ops}
    if op not in chosen:
        known = sorted(chosen.union(around))
        hint = _hint(op, known)
        raise UnknownOp(f"no program runs {op!r}.{hint} Known: {', '.join(known)}")
    previous: dict[tuple[str, str, str], tuple[str, str]] = {}
    flips: list[str] = []
    for name, ref in refs.items():
        same: dict[tuple[str, ...], list[str]] = {}
        for choice in (c for c in choices.programs[name] if op in c.ops):
            same.setdefault(tuple(_why(choice, evidence)), []).append(choice.block)
            key = (choice.block, ref.segment, ref.guard.name)
            before = previous.get(key)
            if before and before[1] != choice.lowering:
                flips.append(
                    f"{choice.block}, {ref.segment}, {ref.guard.name}: {before[1]} up to"
                    f" {before[0]},"
                    f" {choice.lowering} from {name}"
                )
            previous[key] = (name, choice.lowering)
        for (ops, *why), blocks in same.items():
            yield f"{name} ({ref.guard}) {', '.join(dict.fromkeys(blocks))}: {ops}"
            yield from why
    yield from (f"flips  {line}" for line in flips)
    if not flips:
        yield "the choice flips between no two neighbouring programs of a segment and guard"


def _around() -> frozenset[str]:
    """The launches of the step around all segments' programs."""
    return frozenset(chain(*(chain(*step_launches(segment)) for segment in SEGMENTS)))


def _step(
    op: str, manifest: Manifest, refs: Mapping[str, ProgramRef], proof: Certificates | None
) -> Iterator[str]:
    """A launch of the step around the layers, which nothing chooses."""
    if not manifest.step_on_device:
        raise UnknownOp(
            f"no program runs {op!r}: on {manifest.target.name} the host makes the inputs of each"
            " step"
        )
    known = sorted(_around())
    if op not in known:
        raise UnknownOp(f"no program runs {op!r}.{_hint(op, known)} Known: {', '.join(known)}")
    runs = [name for name, ref in refs.items() if op in chain(*step_launches(ref.segment))]
    yield f"{op} in {', '.join(runs) or 'none of these programs'}"
    yield (
        f"  winner {op}: a kernel of the step around the layers, which every program of its segment"
        " launches; no lowering competes with it, and no record prices it"
    )
    shown = None if proof is None else proof.evidence.get(STEP_EVIDENCE)
    if shown is None:
        yield "  proof  compiled, never ran here: the first `serve` runs it over drawn steps"
    else:
        yield f"  proof  {shown.state}, equal to numpy over drawn steps: {shown.what}"


def _why(choice: RegionChoice, evidence: Mapping[str, Evidence]) -> Iterator[str]:
    """The ops of a region, its winner with price and proof, and its losers."""
    yield " + ".join(choice.ops)
    knobs = "".join(f" {name}={value}" for name, value in sorted(choice.knobs.items()))
    yield f"  winner {choice.lowering}{knobs}: {_price(choice)}"
    if choice.probe:
        yield f"  proof  {_proof(choice, evidence)}"
    for loser in choice.losers:
        priced = "" if loser.us is None else f" {loser.us:.2f} us,"
        yield f"  loser  {loser.lowering}:{priced} {loser.reason}"
