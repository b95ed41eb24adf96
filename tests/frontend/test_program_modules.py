"""A captured model goes through the passes of every program and stays valid, readable IR."""

from __future__ import annotations

from itertools import product

import pytest
from tiny import ODD
from xdsl.dialects import builtin
from xdsl.parser import Parser

from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.dialects import context
from lostwax.ir.passes import pipeline


@pytest.fixture(scope="module")
def captured() -> builtin.ModuleOp:
    return capture(parse_config(ODD)).module


@pytest.mark.parametrize(
    ("dtype", "entry", "all_selected"),
    list(product(("f32", "bf16"), ("extend", "decode"), (False, True))),
)
def test_every_program_of_a_captured_model_verifies_and_round_trips(
    captured: builtin.ModuleOp, dtype: str, entry: str, all_selected: bool
) -> None:
    passes = pipeline.program_pipeline(dtype=dtype, segment=entry, all=all_selected)
    text = str(pipeline.run(captured.clone(), passes))
    assert str(Parser(context(), text).parse_module()) == text
    assert ("dsa.index_logits" in text) is not all_selected
    assert text.count("kv.append") == 2 * text.count("mla.attend")
    assert ("[T" in text) is (entry == "extend")
