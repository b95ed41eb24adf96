"""Native attention with keys and values made for a tile of rows: over several panels of positions,
several tiles of rows, requests that begin within a tile, and pages that are not in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from native_kernels import build_native, native_driver
from tiny import ODD

from lostwax.backends.cpu.lowerings.native_expanded import NATIVE_EXPANDED, PANEL
from lostwax.backends.cpu.target import CPU
from lostwax.backends.plan.candidate import Candidate
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.backends.proof.check import certify_lowering
from lostwax.backends.proof.inputs import flat_inputs, region_values
from lostwax.backends.proof.kit import candidates
from lostwax.backends.proof.run_alone import run_alone
from lostwax.backends.proof.step_cases import StepCase, step_case
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.program import Bucket, Guard, Linear
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.clean_up import CleanUpPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.passes.specialise import SpecialisePass

PAGE = 16
BUCKET = Bucket(tokens=230, reqs=3, pages=11)
MOST = {False: 40, True: BUCKET.pages * PAGE}
"""Positions that a row selects at most, by whether those are all."""
TILES = (512, 128)


def _places(every: bool, dtype: str, weights: str) -> Iterator[Candidate]:
    config: dict[str, Any] = ODD | {"index_topk": MOST[every]}
    captured = capture(parse_config(config), PAGE)
    passes = (
        AssignFormatsPass(dtype=dtype, weights=weights),
        SpecialisePass(segment="extend", all=every),
        CleanUpPass(),
    )
    module = run(captured.module, passes, None)
    guard = Guard("all", (Linear({"max_kv": 1}, MOST[every]),)) if every else Guard("always")
    context = ProgramContext(module, CPU, "extend", BUCKET, guard)
    yield from candidates(context, (NATIVE_EXPANDED[every],))


def _case(seed: int) -> StepCase:
    return step_case(BUCKET, "extend", seed, page_tokens=PAGE, vocab_size=64)


@pytest.mark.parametrize("weights", ["model", "int8"])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("every", [False, True], ids=["selected", "all"])
def test_many_rows_over_several_panels(every: bool, dtype: str, weights: str) -> None:
    assert 2 * PANEL < BUCKET.pages * PAGE < 3 * PANEL
    (place,), case = _places(every, dtype, weights), _case(0)
    given = flat_inputs(place.region, region_values(place.region, case), case)
    found: list[dict[str, bytes]] = []
    for rows in TILES:
        by_tiles = run_alone(place, native_driver, build_native, {"row_tile": rows})
        certify_lowering(
            by_tiles, place.region, [_case(0), _case(1)], lowering=place.name, state="executed"
        )
        found.append({name: array.tobytes() for name, array in by_tiles(given).items()})
    assert found[0] == found[1]  # a row's bits depend on no tile
