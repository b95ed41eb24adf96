"""`lostwax explain`: what was chosen for each op, what lost and why."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lostwax.ir.contract.artifact import ProgramRef
from lostwax.ir.contract.choice import Choices, RegionChoice


class UnknownOp(ValueError):
    """No program of the artifact runs this op."""


def explain(
    artifact: Path,
    op: str | None = None,
    /,
    *,
    entry: str | None = None,
    program: str | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Print the chosen lowering of each op, its price, each loser and why it lost.

    Parameters
    ----------
    artifact
        The artifact folder.
    op
        Only this op, such as mla.attend: then every program's choice, and where it flips.
    entry
        Only programs of this entry: extend or decode.
    program
        Only this program (a file name of the artifact's programs/, without .json).
    json_
        Print the recorded choices as JSON.
    """
    from lostwax.backends.runtime.artifact_reader import ArtifactReader

    reader = ArtifactReader(artifact)
    if json_:
        print(reader.read("choices.json").decode(), end="")
        return
    choices = reader.structure("choices.json", Choices)
    refs = {Path(r.file).stem: r for r in reader.manifest.programs}
    kept = {
        name: ref
        for name, ref in refs.items()
        if entry in (None, ref.entry) and program in (None, name)
    }
    lines = _tables(choices, kept) if op is None else _one_op(choices, kept, op)
    print("\n".join(lines))


def _name(choice: RegionChoice) -> str:
    return f"{choice.block}: {' + '.join(choice.ops)}"


def _price(us: float, source: str) -> str:
    return f"{us:.2f} us ({source})"


def _tables(choices: Choices, refs: dict[str, ProgramRef]) -> Iterator[str]:
    """One line a region, the programs that chose alike together."""
    same: dict[tuple[tuple[str, str, str], ...], list[str]] = {}
    for name in refs:
        key = tuple((c.block, " + ".join(c.ops), c.lowering) for c in choices.programs[name])
        same.setdefault(key, []).append(name)
    for key, names in same.items():
        yield f"{', '.join(names)}:"
        yield from (f"  {block:<12} {lowering:<34} {ops}" for block, ops, lowering in key)
    for group, stored in choices.storage.items():
        kept = [s for s in stored if "+" in s or "@" in s]
        yield f"weights of {group}: {', '.join(kept) or 'row-major, as in the checkpoint'}"


def _one_op(choices: Choices, refs: dict[str, ProgramRef], op: str) -> Iterator[str]:
    """Every program's choice for one op, with losers, then where the choice flips."""
    known = sorted({o for c in choices.programs.values() for r in c for o in r.ops})
    if op not in known:
        close = get_close_matches(op, known, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UnknownOp(f"no program runs {op!r}.{hint} Known: {', '.join(known)}")
    previous: dict[tuple[str, str, str], tuple[str, str]] = {}
    flips: list[str] = []
    for name, ref in refs.items():
        for choice in (c for c in choices.programs[name] if op in c.ops):
            yield f"{name} ({ref.guard}) {_name(choice)}"
            yield f"  winner {choice.lowering}: {_price(choice.us, choice.source)}"
            for loser in choice.losers:
                priced = "" if loser.us is None else f" {loser.us:.2f} us,"
                yield f"  loser  {loser.lowering}:{priced} {loser.reason}"
            key = (choice.block, ref.entry, ref.guard.name)
            before = previous.get(key)
            if before and before[1] != choice.lowering:
                flips.append(
                    f"{choice.block}, {ref.entry}, {ref.guard.name}: {before[1]} up to {before[0]},"
                    f" {choice.lowering} from {name}"
                )
            previous[key] = (name, choice.lowering)
    yield from (f"flips  {line}" for line in flips)
    if not flips:
        yield "the choice flips between no two neighbouring programs of an entry and guard"
