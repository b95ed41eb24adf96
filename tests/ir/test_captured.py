"""Small prefill steps are captured where every launch can be; what the host reads is walked."""

from __future__ import annotations

import pytest

from lostwax.ir.contract.captured import is_captured, may_be_captured
from lostwax.ir.contract.program import Bucket, Call, Guard, HostCall, Program, Segment
from lostwax.ir.contract.target import Replay, Target

EXTEND_ROWS = 256
GUARD = Guard(name="all", selects_all=True, terms=())


def _target(replay: Replay = "graph") -> Target:
    return Target(
        name="t", backend="t", arch="", dtypes=("f32",), memory_bytes=1 << 30,
        bandwidth_gbps=1, tflops={"f32": 1}, launch_us=1, compute_units=1,
        replay=replay, graph_segments=("decode",), graph_extend_rows=EXTEND_ROWS,
    )  # fmt: skip


def _program(segment: Segment, tokens: int, *, capturable: bool = True) -> Program:
    can, may = (HostCall(function="a:b", args=(), capturable=each) for each in (True, capturable))
    return Program(
        segment=segment,
        bucket=Bucket(tokens=tokens, reqs=1, pages=1),
        guard=GUARD,
        arena_bytes=0,
        prepare=(),
        blocks={"dense": (can, may)},
        calls=(Call(block="dense", prefix="layers.0", layer=0),),
        outputs={},
    )


@pytest.mark.parametrize("tokens", [1, EXTEND_ROWS, 4 * EXTEND_ROWS])
def test_a_named_segment_is_captured_at_any_size(tokens: int) -> None:
    assert is_captured(_program("decode", tokens), _target())
    assert not is_captured(_program("draft", tokens), _target())


@pytest.mark.parametrize(("tokens", "expected"), [(EXTEND_ROWS, True), (EXTEND_ROWS + 1, False)])
def test_a_prefill_step_is_captured_up_to_a_size(tokens: int, expected: bool) -> None:
    program = _program("extend", tokens)
    assert may_be_captured("extend", program.bucket, _target()) == expected
    assert is_captured(program, _target()) == expected


def test_what_reads_on_the_host_is_walked() -> None:
    assert not is_captured(_program("extend", 16, capturable=False), _target())


@pytest.mark.parametrize("replay", ["walk", "none"])
def test_a_target_without_graphs_captures_nothing(replay: Replay) -> None:
    assert not is_captured(_program("extend", 16), _target(replay))
    assert not is_captured(_program("decode", 1), _target(replay))
