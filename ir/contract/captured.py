"""Which programs are captured as device graphs, and which are walked. Knows no device."""

from __future__ import annotations

from lostwax.ir.contract.program import Bucket, HostCall, Program, Segment, launches_of
from lostwax.ir.contract.target import Target


def must_be_captured(segment: str, target: Target) -> bool:
    """Whether every program of the segment is captured: none of its launches may forbid it, which
    `check_program.py` sees to."""
    return target.replay == "graph" and segment in target.graph_segments


def may_be_captured(segment: Segment, bucket: Bucket, target: Target) -> bool:
    """Whether a program of that segment and bucket is captured unless a launch of it forbids it."""
    is_small = target.replay == "graph" and bucket.tokens <= target.graph_extend_rows
    return must_be_captured(segment, target) or (segment == "extend" and is_small)


def forbidding(program: Program) -> HostCall | None:
    """A launch of the program that forbids its capture, None where none does."""
    calls = (launch for launch in launches_of(program) if isinstance(launch, HostCall))
    return next((call for call in calls if not call.capturable), None)


def is_captured(program: Program, target: Target) -> bool:
    """Whether the program is captured: a small prefill step is where all its launches can be."""
    may = may_be_captured(program.segment, program.bucket, target)
    return may and forbidding(program) is None
