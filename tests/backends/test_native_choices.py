"""Heads choose native kernels, for any number of rows."""

from __future__ import annotations

import pytest
from tiny import ODD

from lostwax.backends.cpu.lowerings import lowerings
from lostwax.backends.cpu.target import CPU
from lostwax.backends.plan.cover import cover, find_candidates, find_sites
from lostwax.backends.plan.price import NoMeasurements
from lostwax.backends.plan.program_context import ProgramContext
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.program import HEADS, Bucket, Guard
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.clean_up import CleanUpPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.passes.specialise import SpecialisePass


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_a_head_calls_no_torch(dtype: str) -> None:
    config = parse_config(ODD | {"num_nextn_predict_layers": 1})
    captured = run(capture(config, 16).module, (AssignFormatsPass(dtype=dtype),), None)
    foreign: list[str] = []
    for segment in HEADS:
        module = run(captured.clone(), (SpecialisePass(segment=segment), CleanUpPass()), None)
        for rows in (1, 8, 64, 512):
            context = ProgramContext(module, CPU, segment, Bucket(rows=rows), Guard("always"))
            for block in context.blocks.values():
                sites = find_sites(block, lowerings(CPU))
                found = find_candidates(context, block, sites, NoMeasurements())
                chosen = cover(found, lambda candidate: None).chosen
                names = [each.candidate.name for each in chosen]
                assert names
                foreign += [n for n in names if not n.startswith("cpu_native_")]
    assert not foreign
