"""The specialised modules that an artifact's programs share. Knows no bucket's sizes, no target."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from xdsl.dialects import builtin

from lostwax.backends.plan.sizes import ALL, CHOSEN
from lostwax.ir.contract.program import HEADS, Bucket, Guard, Segment
from lostwax.ir.passes.clean_up import CleanUpPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.passes.specialise import SpecialisePass


class Specified(Protocol):
    """A program to compile (ProgramSpec) or in an artifact (ProgramRef)."""

    @property
    def segment(self) -> Segment:
        """extend, decode, draft or a head."""
        ...

    @property
    def bucket(self) -> Bucket:
        """Its sizes."""
        ...

    @property
    def guard(self) -> Guard:
        """Its guard."""
        ...


@dataclass(frozen=True, slots=True, order=True)
class Variant:
    """What decides a program's module: segment, selection, rows a request of a decode step."""

    segment: Segment
    every: bool
    rows: int = 1

    @staticmethod
    def of(program: Specified) -> Variant:
        """The variant of a program."""
        bucket = program.bucket
        rows = bucket.rows_a_req if program.segment == "decode" else 1
        return Variant(program.segment, program.guard.selects_all, rows)

    @property
    def name(self) -> str:
        """File name of its graph, without the suffix."""
        rows = f"-rows{self.rows}" if self.rows > 1 else ""
        if self.segment in HEADS:
            return self.segment
        return f"{self.segment}{rows}-{ALL if self.every else CHOSEN}"


def specialise_variants(
    module: builtin.ModuleOp, variants: Iterable[Variant], dump_dir: Path | None
) -> dict[Variant, builtin.ModuleOp]:
    """One module for each variant."""
    modules: dict[Variant, builtin.ModuleOp] = {}
    for variant in sorted(set(variants)):
        dumps = dump_dir / variant.name if dump_dir else None
        chosen = SpecialisePass(segment=variant.segment, all=variant.every, rows=variant.rows)
        modules[variant] = run(module.clone(), (chosen, CleanUpPass()), dumps)
    return modules
