"""Small prefill steps are captured where every launch can be; what the host reads is walked."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest

from lostwax.backends.plan.step_launch import step_launch
from lostwax.ir.contract.captured import is_captured, may_be_captured
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.program import Bucket, Call, Guard, HostCall, Program, Segment, View
from lostwax.ir.contract.step import StepOp
from lostwax.ir.contract.target import Replay, Target

EXTEND_ROWS = 256
GUARD = Guard(name="all", selects_all=True, terms=())


def _target(replay: Replay = "graph") -> Target:
    return Target(
        name="t", backend="t", arch="", dtypes=("f32",), memory_bytes=1 << 30,
        bandwidth_gbps=1, tflops={"f32": 1}, launch_us=1, compute_units=1,
        replay=replay, graph_segments=("decode",), graph_extend_rows=EXTEND_ROWS,
    )  # fmt: skip


PLACES = ("prepare", "dense", "moe", "finish")


def _program(segment: Segment, tokens: int, *, reading: tuple[str, int] | None = None) -> Program:
    """Two launches in each place; `reading` names the one that may not be captured."""
    at = {
        place: tuple(
            HostCall(function="a:b", args=(), capturable=(place, i) != reading) for i in range(2)
        )
        for place in PLACES
    }
    return Program(
        segment=segment,
        bucket=Bucket(tokens=tokens, reqs=1, pages=1),
        guard=GUARD,
        arena_bytes=0,
        prepare=at["prepare"],
        blocks={block: at[block] for block in ("dense", "moe")},
        calls=(
            Call(block="dense", prefix="layers.0", layer=0),
            Call(block="moe", prefix="layers.1", layer=1),
        ),
        finish=at["finish"],
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


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", [0, 1])
def test_what_reads_on_the_host_is_walked_wherever_it_stands(place: str, number: int) -> None:
    assert not is_captured(_program("extend", 16, reading=(place, number)), _target())


@pytest.mark.parametrize("placement", ["host", "device"])
def test_what_is_prepared_on_the_host_is_walked(placement: Literal["host", "device"]) -> None:
    op = StepOp(function="a:b", inputs=("positions",), outputs=(), placement=placement)
    view = View(space="input", name="positions", dtype="i32", shape=(16,), strides=(1,))
    launch = step_launch(op, lambda _: view, {}, _no_kernel, _target())
    program = msgspec.structs.replace(_program("extend", 16), prepare=(launch,))
    assert is_captured(program, _target()) == (placement == "device")


def _no_kernel(source: KernelSource) -> CompiledKernel:
    raise AssertionError(source)


@pytest.mark.parametrize("replay", ["walk", "none"])
def test_a_target_without_graphs_captures_nothing(replay: Replay) -> None:
    assert not is_captured(_program("extend", 16), _target(replay))
    assert not is_captured(_program("decode", 1), _target(replay))
