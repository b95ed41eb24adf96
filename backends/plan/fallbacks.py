"""What of a predicted step runs on portable lowerings for want of the target's own.

Portable lowerings run on torch's operators and are made for no device.

Reads an artifact's choices; chooses nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.ir.contract.artifact import ProgramRef
from lostwax.ir.contract.choice import Choices, RegionChoice
from lostwax.ir.contract.program import SEGMENTS

LEAST_SHARE = 0.01
"""Smaller parts of a step are not worth a line."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """A region under a portable lowering: its part of the step, and why none of the target's own.

    `refusals` are (lowering, reason); empty where the target has none or portable was cheaper.
    """

    ops: tuple[str, ...]
    lowering: str
    share: float
    refusals: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PredictedStep:
    """One program's predicted microseconds, over all layers, and its fallbacks by share."""

    program: str
    us: float
    fallbacks: tuple[Fallback, ...]

    @property
    def share(self) -> float:
        """The part of the step under portable lowerings."""
        return sum(f.share for f in self.fallbacks)

    def lines(self) -> Iterator[str]:
        """For people: a line for the step, one for each part of it that is worth one."""
        if not self.fallbacks:
            return
        yield (
            f"{self.program}: predicted {self.us / 1e3:.2f} ms,"
            f" {self.share:.0%} of it by portable lowerings"
        )
        for each in self.fallbacks:
            if each.share >= LEAST_SHARE:
                why = "".join(f"; {name}: {reason}" for name, reason in each.refusals)
                yield f"  {each.share:4.0%} {' + '.join(each.ops)} by {each.lowering}{why}"


def _predicted(
    program: str, choices: tuple[RegionChoice, ...], layers: Counter[str]
) -> PredictedStep:
    total = sum(c.us * layers[c.block] for c in choices)
    us: dict[tuple[tuple[str, ...], str], float] = {}
    refusals: dict[tuple[tuple[str, ...], str], dict[str, str]] = {}
    for choice in (c for c in choices if c.portable):
        key = (choice.ops, choice.lowering)
        us[key] = us.get(key, 0.0) + choice.us * layers[choice.block]
        refused = (x for x in choice.losers if x.us is None and not x.portable)
        refusals.setdefault(key, {}).update((x.lowering, x.reason) for x in refused)
    found = (
        Fallback(
            ops,
            lowering,
            part / total if total else 0.0,
            tuple(refusals[ops, lowering].items()),
        )
        for (ops, lowering), part in sorted(us.items(), key=lambda item: -item[1])
    )
    return PredictedStep(program, total, tuple(found))


def _largest(refs: tuple[ProgramRef, ...], segment: str) -> ProgramRef | None:
    found = [r for r in refs if r.segment == segment]
    return max(found, key=lambda r: (r.bucket, refs.index(r)), default=None)


def predicted_steps(reader: ArtifactReader) -> tuple[PredictedStep, ...]:
    """The largest program of each segment, under the guard that comes last."""
    choices = reader.structure("choices.json", Choices).programs
    steps: list[PredictedStep] = []
    for segment in SEGMENTS:
        ref = _largest(reader.manifest.programs, segment)
        if ref is not None:
            name = PurePath(ref.file).stem
            layers = Counter(call.block for call in reader.program(ref.file).calls)
            steps.append(_predicted(name, choices[name], layers))
    return tuple(steps)
