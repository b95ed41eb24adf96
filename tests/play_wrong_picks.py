"""Plays requests on two ranks of which the second picks other ids now and then.

As a script, once a rank: `play_wrong_picks.py RANK RANKS OUT CHECKPOINT ARTIFACT`; the ranks meet
over OUT/meeting, rank R writes OUT/R.json. Knows no test.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import torch

from lostwax.backends.portable.kernels import sample
from lostwax.backends.runtime.gloo import gather, part
from lostwax.backends.runtime.load import Runtime, load
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Output, Submit

WRONG = (1, 4, 5, 12)
"""Numbers of the heads, bodies' and drafts', in which the second rank picks other ids."""
PROMPTS = (40, 21)


class Play(msgspec.Struct):
    """What one rank saw: its answers (rank 0), the state before each agreement and at the end, and
    how many of its own picks were not what was agreed upon."""

    tokens: dict[str, list[int]] = {}
    states: list[dict[str, list[Any]]] = []
    num_corrected: int = 0


@dataclass
class _Picks:
    """Every head of this process; it picks the next id in those that are `wrong`."""

    write: Callable[..., None]
    wrong: tuple[int, ...] = ()
    number: int = field(default=0)

    def __call__(
        self, logits: torch.Tensor, chosen: torch.Tensor, ids: torch.Tensor, logprobs: torch.Tensor
    ) -> None:
        if self.number in self.wrong:
            chosen = (chosen + 1) % logits.shape[1]
        self.number += 1
        self.write(logits, chosen, ids, logprobs)


def _state(runtime: Runtime) -> dict[str, list[Any]]:
    return {name: array.tolist() for name, array in runtime.state.fields.items()}


@contextmanager
def _noting(runtime: Runtime, play: Play, *, agrees: bool) -> Generator[None]:
    """Look at what is agreed upon; without `agrees`, each rank goes on with its own picks."""
    agree = runtime.ranks.agree

    def noting(ids: Any) -> Any:
        play.states.append(_state(runtime))
        mine = ids.tolist()
        found = agree(ids) if agrees else ids
        play.num_corrected += found.tolist() != mine
        return found

    with patch.object(runtime.ranks, "agree", noting):
        yield
    play.states.append(_state(runtime))


def _answers(runtime: Runtime) -> dict[str, list[int]]:
    """Two requests by the engine, one of them sampled."""
    core = EngineCore(runtime)
    found: dict[str, list[int]] = {}
    for number, count in enumerate(PROMPTS):
        name = str(number)
        prompt = [(7 * i + number) % 61 for i in range(count)]
        core.handle(
            Submit(
                request=name, prompt=prompt, max_tokens=12, temperature=number, seed=5,
                ignore_eos=True,
            )
        )  # fmt: skip
        found[name] = []
    while core.has_work:
        for event in core.step():
            assert isinstance(event, Output), event
            found[event.request] += [score.token for score in event.tokens]
    return found


def _play(runtime: Runtime, picks: _Picks, *, wrong: bool, agrees: bool) -> Play:
    play = Play()
    is_first = runtime.ranks.rank.index == 0
    picks.number, picks.wrong = 0, WRONG if wrong and not is_first else ()
    with _noting(runtime, play, agrees=agrees):
        if is_first:
            play.tokens = _answers(runtime)
            runtime.ranks.dismiss()
        else:
            runtime.follow()
    return play


def main() -> None:
    """Play without wrong picks, with them, and with ranks that do not agree."""
    rank, count, out, checkpoint, artifact = sys.argv[1:]
    gather(Path(out, "meeting"), int(rank), int(count))
    picks = _Picks(vars(sample)["_write"])
    with patch.object(sample, "_write", picks):
        runtime = load(Path(artifact), checkpoint=Path(checkpoint), num_pages=12, threads=1)
        plays = {
            "right": _play(runtime, picks, wrong=False, agrees=True),
            "wrong": _play(runtime, picks, wrong=True, agrees=True),
            "unagreed": _play(runtime, picks, wrong=True, agrees=False),
        }
    notes = msgspec.to_builtins(plays)
    Path(out, f"{rank}.json").write_text(json.dumps(notes), encoding="utf-8")
    part()


if __name__ == "__main__":
    main()
