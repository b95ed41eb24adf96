"""Attention absorbed and expanded, each forced as `--lowering` does, is the same attention; so is
the model on the CPU's native kernels."""

from __future__ import annotations

import pytest
import torch
from harness import PROMPT, Build, Models, Player
from oracle import hf_logits

from lostwax.backends.plan.cover import Forced
from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.ir.contract.choice import Choices

TOLERANCE = 1e-4
NUM_DECODED = 6


def build(name: str) -> Build:
    return Build("odd", 1, max_reqs=1, forced=(Forced("mla.attend", name),))


def play(models: Models, name: str) -> torch.Tensor:
    """Logits of a prefill and a few decode steps."""
    player = Player(models.runtime(build(name)))
    request = player.open(build(name).tokens(PROMPT))
    rows = player.extend([(request, PROMPT - NUM_DECODED)])
    rows += [row for _ in range(NUM_DECODED) for row in player.decode([request])]
    return torch.cat([row.logits for row in rows])


@pytest.mark.parametrize("form", ["absorbed", "expanded"])
def test_every_program_runs_what_was_forced(models: Models, form: str) -> None:
    name = f"portable_attend_{form}"
    choices = ArtifactReader(models.artifact(build(name))).structure("choices.json", Choices)
    chosen = {c.lowering for p in choices.programs.values() for c in p if "mla.attend" in c.ops}
    assert chosen == {name}


def test_absorbed_and_expanded_give_equal_logits(models: Models) -> None:
    absorbed, expanded = (play(models, f"portable_attend_{f}") for f in ("absorbed", "expanded"))
    (want,) = hf_logits(models.oracle("odd", 1, "fp32"), [build("").tokens(PROMPT)])
    torch.testing.assert_close(absorbed, expanded, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(absorbed, want, rtol=0, atol=TOLERANCE)


NATIVE = {
    "quant.linear": "cpu_native_linear",
    "moe.experts": "cpu_native_experts",
    "moe.route": "cpu_native_route",
    "mla.attend": "cpu_native_attend",
    "dsa.topk": "cpu_native_index_topk",
    "core.rope": "cpu_native_rope",
    "kv.append": "cpu_native_append",
    "core.layer_norm": "cpu_native_layer_norm",
}
"""By op; with these the norms and sums between them stay torch's."""


def test_native_kernels_give_transformers_logits(models: Models) -> None:
    native = Build("odd", 1, max_reqs=1, forced=tuple(Forced(*each) for each in NATIVE.items()))
    choices = ArtifactReader(models.artifact(native)).structure("choices.json", Choices)
    chosen = {c.lowering for p in choices.programs.values() for c in p}
    assert set(NATIVE.values()) <= chosen
    player = Player(models.runtime(native))
    request = player.open(native.tokens(PROMPT))
    rows = player.extend([(request, PROMPT - NUM_DECODED)])
    rows += [row for _ in range(NUM_DECODED) for row in player.decode([request])]
    (want,) = hf_logits(models.oracle("odd", 1, "fp32"), [native.tokens(PROMPT)])
    torch.testing.assert_close(torch.cat([r.logits for r in rows]), want, rtol=0, atol=TOLERANCE)
