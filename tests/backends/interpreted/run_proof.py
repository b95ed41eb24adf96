"""Runs what a boot runs to prove the step's kernels, in Triton's interpreter.

A program of its own because Triton decides at import whether it interprets. Argument: maybe a
folder whose package `mutants` stands in for the kernels. Prints the codes that ran, or what was
found wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).parents[2]))

from msgspec import structs
from plain_run import Sources

from lostwax.backends.cuda.target import CUDA_SM90A
from lostwax.backends.gpu_kernels.interpreter import PACKAGE, InterpretingDriver
from lostwax.backends.gpu_kernels.lowerings.step import StepLaunches
from lostwax.backends.runtime.prove_step import prove_step
from lostwax.backends.runtime.run_probe import WrongKernel
from lostwax.ir.contract.artifact import Limits, ProgramRef
from lostwax.ir.contract.program import HEADS, Bucket, Guard, Program, Segment, View
from lostwax.ir.contract.step_layout import RESULT_WIDTHS, StepLayout

LIMITS = Limits(
    max_tokens=12, max_reqs=3, max_context=24, max_score_rows=4, page_tokens=4, vocab_size=9,
    max_drafts=3,
)  # fmt: skip
BUCKETS: Sequence[tuple[Segment, Bucket]] = (
    ("decode", Bucket(8, 2, 6)),
    ("extend", Bucket(12, 3, 5)),
    ("draft", Bucket(12, 3, 6)),
    ("pick", Bucket(rows=5)),
    ("score", Bucket(rows=2)),
)


@dataclass
class Reader:
    """What a proof asks of an artifact: a few programs without layers."""

    programs: Mapping[str, Program]

    @property
    def manifest(self) -> Any:
        """Limits and programs."""
        refs = [
            ProgramRef(file=f, segment=p.segment, bucket=p.bucket, guard=p.guard, arena_bytes=0)
            for f, p in self.programs.items()
        ]
        return _Manifest(LIMITS, refs)

    def program(self, file: str) -> Program:
        """One of them."""
        return self.programs[file]


@dataclass
class _Manifest:
    limits: Limits
    programs: Sequence[ProgramRef]
    step_on_device: bool = True


def program(around: StepLaunches, segment: Segment, bucket: Bucket) -> Program:
    """One whose head's results lie one behind the other in its arena."""
    outputs: dict[str, View] = {}
    if segment in HEADS:
        for i, (name, width) in enumerate(RESULT_WIDTHS.items()):
            shape = (bucket.rows, width) if width > 1 else (bucket.rows,)
            strides = (width, 1)[-len(shape) :]
            outputs[name] = View(
                space="arena", name="", dtype="i32", shape=shape, strides=strides, offset=1024 * i
            )
    if segment == "pick":
        outputs = {name: outputs[name] for name in ("ids", "logprobs")}
    bare = Program(
        segment=segment, bucket=bucket, guard=Guard("any"), arena_bytes=4096,
        prepare=(), blocks={}, calls=(), outputs=outputs,
    )  # fmt: skip
    return structs.replace(bare, prepare=around.before(bare), finish=around.behind(bare))


@dataclass
class Built:
    """An artifact as far as a proof asks, and the sources of its kernels by binary."""

    reader: Reader
    sources: Sources


def built() -> Built:
    """Programs of every segment, with the step's launches and no layers."""
    sources = Sources()
    around = StepLaunches(
        StepLayout.of(LIMITS), LIMITS.page_tokens, CUDA_SM90A,
        lambda source: sources.compile(source, Path()),
    )  # fmt: skip
    return Built(
        Reader({f"{s}.json": program(around, s, bucket) for s, bucket in BUCKETS}), sources
    )


def main() -> None:
    """Prove the kernels, or a faulty copy of them."""
    made = built()
    driver = InterpretingDriver(CUDA_SM90A, cast(Any, None), {})
    driver.sources = made.sources.by_binary
    for folder in sys.argv[1:]:
        sys.path.insert(0, folder)
        driver.packages = ("mutants",)
        driver.sources = {
            binary: structs.replace(source, path=source.path.replace(PACKAGE, "mutants"))
            for binary, source in made.sources.by_binary.items()
        }
    try:
        print(*prove_step(cast(Any, made.reader), driver).ran)
    except WrongKernel as error:
        print(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
