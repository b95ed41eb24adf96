"""What a compile says of the part of a step that runs under portable lowerings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest
from native_kernels import torch_alone
from tiny import PLAIN

from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.plan.fallbacks import Fallback, PredictedStep, predicted_steps
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.choice import Choices
from lostwax.ir.contract.program import HEADS


@pytest.fixture(scope="module", autouse=True)
def of_torch() -> Generator[None]:
    """Native kernels leave nothing to portable lowerings."""
    with torch_alone():
        yield


def test_the_share_counts_each_layer_and_each_portable_choice(tmp_path: Path) -> None:
    captured = capture(parse_config(PLAIN | {"num_hidden_layers": 5}))
    options = CompileOptions(dtype="f32", sizes=Sizes(max_context=256, max_tokens=16, max_reqs=2))
    compile_module(captured.module, captured.facts, {}, "cpu", tmp_path / "a", options)
    reader = ArtifactReader(tmp_path / "a")
    choices = reader.structure("choices.json", Choices).programs
    steps = predicted_steps(reader)
    assert [step.program.split("-")[0] for step in steps] == ["extend", "decode", *HEADS]
    for step in steps[:2]:
        calls = reader.program(f"programs/{step.program}.json").calls
        layers = Counter(call.block for call in calls)
        assert max(layers.values()) > 1, "or a share that forgets layers would pass"
        weighed = [(c, c.us * layers[c.block]) for c in choices[step.program]]
        portable = sum(us for c, us in weighed if c.lowering.startswith("portable_"))
        assert step.us == pytest.approx(sum(us for _, us in weighed))
        assert step.share == pytest.approx(portable / step.us)
        assert 0 < step.share < 1
        named = {(f.ops, f.lowering) for f in step.fallbacks}
        assert named == {(c.ops, c.lowering) for c, _ in weighed if c.portable}


def test_a_refused_lowering_of_the_targets_own_is_named_with_its_reason() -> None:
    refused = (("own_experts", "dtype of x is f8E4M3FN, wants bf16"),)
    slow = Fallback(("moe.experts",), "portable_experts_dense", 0.6, refused)
    little = Fallback(("core.cast",), "portable_cast", 0.004, ())
    step = PredictedStep("decode-t1", 2500.0, (slow, little))
    assert list(step.lines()) == [
        "decode-t1: predicted 2.50 ms, 60% of it by portable lowerings",
        "   60% moe.experts by portable_experts_dense;"
        " own_experts: dtype of x is f8E4M3FN, wants bf16",
    ]


def test_a_step_of_the_targets_own_kernels_has_nothing_to_say() -> None:
    assert list(PredictedStep("decode-t1", 10.0, ()).lines()) == []
