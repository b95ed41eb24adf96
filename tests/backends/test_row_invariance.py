"""A lowering that says its rows are independent gives a row the same bits beside others as alone.

This is what `--batch-invariant` rests on. Every such lowering runs at every place of a captured
model on a step of unequal requests, then on each of its rows as a step of its own.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from native_kernels import build_native, native_driver
from tiny import ODD, WIDE
from xdsl.dialects import builtin
from xdsl.ir import SSAValue

from lostwax.backends.cpu.lowerings import lowerings
from lostwax.backends.cpu.target import CPU
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.plan.state_rows import StateRows
from lostwax.backends.proof.inputs import flat_inputs, named_inputs, region_values
from lostwax.backends.proof.kit import candidates
from lostwax.backends.proof.run_alone import run_alone
from lostwax.backends.proof.step_cases import StepCase, step_case
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.program import HEADS, Bucket, Guard, Segment
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.clean_up import CleanUpPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.passes.specialise import SpecialisePass
from lostwax.ir.types import CacheType, TensorType

PAGE = 16
MANY = {False: Bucket(tokens=21, reqs=3, pages=4), True: Bucket(rows=9)}
ALONE = {False: Bucket(tokens=1, reqs=1, pages=4), True: Bucket(rows=1)}
"""By whether the segment is a head."""
STATES = StateRows(hidden=21, masks=5, biases=12, counts=6)
MTP_ODD = ODD | {"num_nextn_predict_layers": 1}
FP8 = {
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
    "torch_dtype": "bfloat16",
}
FORMATS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "f32": (MTP_ODD, {"dtype": "f32"}),
    "bf16": (MTP_ODD | {"torch_dtype": "bfloat16"}, {}),
    "fp8": (
        WIDE | FP8 | {"vocab_size": 64},
        {"kv": "fp8_656", "indexer": "fp8_ue8m0", "activations": "fp8_ue8m0"},
    ),
}


@cache
def _typed(name: str) -> builtin.ModuleOp:
    config, chosen = FORMATS[name]
    module = capture(parse_config(config), PAGE).module
    return run(module, (AssignFormatsPass(**chosen),), None)


def _pairs(
    name: str, segment: Segment, every: bool, invariant: bool
) -> Iterator[tuple[Candidate, Candidate]]:
    """Each place among many rows, and in a step of one row."""
    special = SpecialisePass(segment=segment, all=every)
    module = run(_typed(name).clone(), (special, CleanUpPass()), None)
    low = tuple(x for x in lowerings(CPU) if x.row_invariant == invariant)
    many, alone = (
        ProgramContext(module, CPU, segment, buckets[segment in HEADS], Guard("always"), STATES)
        for buckets in (MANY, ALONE)
    )
    yield from zip(candidates(many, low), candidates(alone, low), strict=True)


def _symbol(value: SSAValue) -> str:
    """Which rows the first axis counts: T, R, or none."""
    kind = value.type
    if not isinstance(kind, TensorType) or not kind.sizes:
        return ""
    return str(kind.sizes[0])


def _rows(match: Any) -> set[str]:
    values = [*named_inputs(match).values(), *match.output_values()]
    return {s for v in values if (s := _symbol(v)) in ("T", "R")}


def _one_row(
    candidate: Candidate, flat: Mapping[str, Any], case: StepCase, axis: str, row: int
) -> dict[str, Any]:
    """The inputs of one row as a step of its own, in the same pages."""
    step: dict[str, Any] = {"num_rows": np.ones(1, np.int32)}
    if axis == "T":
        request = int(np.searchsorted(case.inputs["q_starts"][1:], row, side="right"))
        step |= {n: case.inputs[n][row : row + 1] for n in ("tokens", "positions", "slots")}
        step["q_starts"] = np.array([0, 1], np.int32)
        step["kv_lens"] = step["positions"] + 1
        step["page_table"] = case.inputs["page_table"][request : request + 1]
    out = {f"step.{n}": a for n, a in step.items()}
    for name, value in named_inputs(candidate.region).items():
        hint = candidate.block.input_name(value)
        if hint in step:
            out[name] = step[hint]
            continue
        for each in (name, f"{name}:scale"):
            if each in flat:
                sliced = _symbol(value) == axis
                out[each] = flat[each][row : row + 1] if sliced else flat[each]
    return out


def _differences(many: Candidate, alone: Candidate, case: StepCase) -> list[str]:
    driver = native_driver()
    flat = flat_inputs(many.region, region_values(many.region, case), case)
    together = run_alone(many, lambda: driver, build_native)(flat)
    by_itself = run_alone(alone, lambda: driver, build_native)
    (axis,) = _rows(many.region)
    real = case.inputs[{"T": "positions", "R": "logit_rows"}[axis]] >= 0
    found: list[str] = []
    for row in range(int(real.sum())):
        given = by_itself(_one_row(many, flat, case, axis, row))
        for name, whole in together.items():
            if whole[row : row + 1].tobytes() != given[name].tobytes():
                found.append(f"{many.name} {name} row {row}")
    return found


def _checked(
    name: str, segment: Segment, every: bool, *, invariant: bool = True
) -> tuple[list[str], set[str]]:
    """What differed, and the lowerings that were tried."""
    found: list[str] = []
    seen: set[str] = set()
    case = step_case(
        MANY[segment in HEADS],
        segment,
        1,
        page_tokens=PAGE,
        vocab_size=64,
        states=STATES,
    )
    for many, alone in _pairs(name, segment, every, invariant):
        is_cache = any(isinstance(v.type, CacheType) for v in many.region.output_values())
        assert many.lowering is not None
        if is_cache or len(_rows(many.region)) != 1 or many.lowering.when.refusal(many):
            continue
        found += _differences(many, alone, case)
        seen.add(many.name)
    return found, seen


@pytest.mark.parametrize(
    ("segment", "every"), [("extend", False), ("extend", True), ("score", False)]
)
@pytest.mark.parametrize("name", FORMATS)
def test_a_row_has_the_same_bits_beside_others_as_alone(
    name: str, segment: Segment, every: bool
) -> None:
    found, seen = _checked(name, segment, every)
    assert not found
    if segment == "score":
        assert {"cpu_linear_blocks", "portable_mask", "portable_pick", "portable_score"} <= seen
        return
    assert {"cpu_linear_blocks", "cpu_attend_rows", "cpu_experts_blocks"} <= seen
    assert every or "cpu_index_topk_rows" in seen


@pytest.fixture
def two_threads() -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_so_it_has_where_threads_share_the_work() -> None:
    assert not _checked("f32", "extend", every=False)[0]


def test_so_have_the_rows_of_a_draft() -> None:
    found, seen = _checked("f32", "draft", every=False)
    assert not found
    assert "portable_concat" in seen


def test_the_check_notices_rows_that_depend_on_one_another() -> None:
    found, _ = _checked("f32", "extend", every=False, invariant=False)
    assert any(line.startswith("portable_linear ") for line in found)
