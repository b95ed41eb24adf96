"""Attention absorbed and expanded, each forced as `--lowering` does, is the same attention."""

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
