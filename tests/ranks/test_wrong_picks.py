"""A rank that picks other ids goes on with the first rank's, and its state stays the first's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from native_kernels import torch_alone
from play_wrong_picks import WRONG, Play
from rank_processes import run_on_two_ranks
from small import options
from tiny import MTP, write_config

from lostwax.backends.compile import compile_module
from lostwax.backends.plan.sizes import Sizes
from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint

SCRIPT = Path(__file__).parents[1] / "play_wrong_picks.py"
SIZES = Sizes(max_context=128, max_tokens=64, max_reqs=2, max_drafts=2)
Plays = dict[str, Play]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plays, Plays]:
    """What each rank saw."""
    folder = tmp_path_factory.mktemp("wrong")
    checkpoint, artifact = folder / "checkpoint", folder / "artifact"
    new_checkpoint(write_config(folder / "source", MTP), checkpoint, seed=3, format="fp32")
    c = capture(open_checkpoint(checkpoint))
    chosen = replace(options(sizes=SIZES), tp=2)
    with torch_alone():  # picks go wrong in an operator of torch's
        compile_module(c.module, c.facts, c.weights, "cpu", artifact, chosen)
    run_on_two_ranks(SCRIPT, str(folder), str(checkpoint), str(artifact))
    first, second = (
        msgspec.json.decode((folder / f"{rank}.json").read_bytes(), type=Plays) for rank in range(2)
    )
    return first, second


@pytest.mark.parametrize("play", ["right", "wrong"])
def test_the_state_of_both_ranks_is_equal_at_every_pick(
    played: tuple[Plays, Plays], play: str
) -> None:
    first, second = (plays[play] for plays in played)
    assert len(first.states) > max(WRONG) + 1
    assert first.states == second.states


def test_wrong_picks_are_corrected_and_change_no_answer(played: tuple[Plays, Plays]) -> None:
    first, _ = played
    assert [plays["right"].num_corrected for plays in played] == [0, 0]
    assert [plays["wrong"].num_corrected for plays in played] == [0, len(WRONG)]
    assert first["wrong"].tokens == first["right"].tokens
    assert {len(tokens) for tokens in first["right"].tokens.values()} == {12}


def test_without_agreement_the_states_would_part(played: tuple[Plays, Plays]) -> None:
    first, second = (plays["unagreed"] for plays in played)
    assert first.states[: WRONG[0] + 1] == second.states[: WRONG[0] + 1]
    assert first.states[WRONG[0] + 1] != second.states[WRONG[0] + 1]
