"""Which programs are captured as device graphs, and which are walked. Knows no device."""

from __future__ import annotations

from lostwax.ir.contract.check_program import launches_of
from lostwax.ir.contract.program import Bucket, HostCall, Program, Segment
from lostwax.ir.contract.target import Target

EXTEND_ROWS = 512
"""Largest prefill step that is captured: such steps come between the tokens of streams, and walking
their launches takes the host several times what the device needs. Larger ones keep the device busy
as they are walked. It bounds what capture costs at load: some 20 ms a program of five layers and
`GRAPH_NODE_BYTES` (`backends/plan/memory_plan.py`) a launch, for about 32 programs more."""


def may_be_captured(segment: Segment, bucket: Bucket, target: Target) -> bool:
    """Whether a program of that segment and bucket is captured unless a launch of it forbids it."""
    if target.replay != "graph":
        return False
    is_small_extend = segment == "extend" and bucket.tokens <= EXTEND_ROWS
    return is_small_extend or segment in target.graph_segments


def is_captured(program: Program, target: Target) -> bool:
    """Whether the program is captured: a small prefill step is where all its launches can be.

    Launches of the segments that the target names can be captured: the planner refuses others.
    """
    return may_be_captured(program.segment, program.bucket, target) and all(
        launch.capturable for launch in launches_of(program) if isinstance(launch, HostCall)
    )
