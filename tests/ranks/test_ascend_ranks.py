"""Two ranks of the Ascend lowerings, over CPU twins and Gloo: interpreted, never executed.

On NPUs torch.distributed's backend is HCCL; what is split, and where ranks meet, is the same.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ascend_twin import TWIN, TWIN_TARGET
from model_formats import FP8
from play_steps import Note, play_artifact
from rank_processes import run_on_two_ranks
from tiny import WIDE, write_config

from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.plan.sizes import Sizes
from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint

SCRIPT = Path(__file__).parents[1] / "play_steps.py"
CONFIG = WIDE | FP8 | {"torch_dtype": "bfloat16", "vocab_size": 64, "n_group": 2, "topk_group": 1}
SIZES = Sizes(max_context=128, max_tokens=64, max_reqs=2, max_score_rows=64)


def _flat(note: Note) -> torch.Tensor:
    return torch.tensor([score for step in note["scores"] for row in step for score in row])


@pytest.mark.slow
def test_two_ranks_give_what_one_gives(tmp_path: Path) -> None:
    """In W8A8: a rank rounds what enters its half of a product by a scale of its own."""
    source = write_config(tmp_path / "source", CONFIG)
    checkpoint = tmp_path / "checkpoint"
    new_checkpoint(source, checkpoint, seed=3, format="fp8")
    captured = capture(open_checkpoint(checkpoint))
    for tp, out in ((1, "one"), (2, "two")):
        options = CompileOptions(sizes=SIZES, tp=tp, extra_backends=(TWIN,))
        module, facts, weights = captured.module, captured.facts, captured.weights
        compile_module(module, facts, weights, TWIN_TARGET.name, tmp_path / out, options)
    alone = play_artifact(tmp_path / "one", checkpoint)
    run_on_two_ranks(SCRIPT, str(tmp_path), f"{checkpoint}={tmp_path / 'two'}")
    key = str(tmp_path / "two")
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text())[key] for rank in (0, 1))
    difference = (_flat(first) - _flat(alone)).abs()
    assert float(difference.median()) < 0.02
    assert float(difference.quantile(0.9)) < 0.1
    assert first["selections"] == second["selections"]
    assert len(first["selections"]) >= 8 * 2, "layers"
