"""The three stages of training, each by the clock. Knows no file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from recipe.model import Mode, Model
from recipe.optimise import Optimiser, balance
from recipe.packing import Batch

COMPILE_STEPS = 4  # the clock starts after these: compiling takes longer than some stages
RAMP_STEPS = 80  # linear warm-up of the rates: no optimizer state comes from the stage before
LOG_EVERY = 25
NextBatch = Callable[[int], Batch]
"""The batch of a step; packs of every length must come within COMPILE_STEPS."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What a stage trains, and the rates at its start as shares of their peaks."""

    mode: Mode
    main: float
    index: float
    hold: float
    """The share of the time after which rates begin to fall to zero."""
    mtp_loss: float
    balances: bool = False
    """Whether router biases follow the experts' loads."""


STAGES = {
    "dense": Stage("dense", main=1.0, index=0.0, hold=0.2, mtp_loss=0.3, balances=True),
    "warm": Stage("warm", main=0.0, index=1.0, hold=0.6, mtp_loss=0.0),
    # A main rate as small as V3.2's own (7.3e-6 after 2.2e-4, arXiv:2512.02556), and biases that
    # stand still, as in the last 500B tokens of DeepSeek-V3 (arXiv:2412.19437): long packs load
    # experts otherwise than short ones do, and biases that follow them undid word problems.
    "sparse": Stage("sparse", main=0.03, index=0.3, hold=0.0, mtp_loss=0.1),
}


@dataclass(slots=True)
class Log:
    """What happened: one row now and then."""

    rows: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def add(self, **row: float | str) -> None:
        """Keep a row and print it."""
        self.rows.append(row)
        shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
        print("  ".join(shown), flush=True)


def run_stage(
    name: str, model: Model, next_batch: NextBatch, seconds: float, log: Log, *,
    device: str, until: float, peak: float = 1.0, max_steps: int | None = None,
) -> None:  # fmt: skip
    """Train for `seconds` after compilation, but not past `until` (or for `max_steps`).

    `peak` multiplies all rates: a run that goes on from good weights needs no high ones.
    `until` is on `time.monotonic`: where compiling took longer than thought, rates fall faster.
    """
    stage, s = STAGES[name], model.shape
    optimiser = Optimiser(model.weights, main=stage.main > 0, index=stage.index > 0)
    begun, started, step, tokens_seen = time.monotonic(), None, 0, 0
    while max_steps is None or step < max_steps:
        if step == COMPILE_STEPS:
            _synchronise(device)
            started = time.monotonic()
            seconds = max(min(seconds, until - started), 1.0)
            print(f"{name}: compiled in {started - begun:.1f} s", flush=True)
        done = 0.0 if started is None else (time.monotonic() - started) / seconds
        if done >= 1:
            break
        share = min(1.0, (step + 1) / RAMP_STEPS) * min(1.0, (1 - done) / (1 - stage.hold)) * peak
        tokens, weights = (torch.from_numpy(a).to(device) for a in next_batch(step))
        losses = _step(model, stage, tokens, weights)
        optimiser.step(stage.main * share, stage.index * share)
        if stage.balances:
            balance(s, model.weights, losses.loads, share)
        step, tokens_seen = step + 1, tokens_seen + tokens.numel()
        if step % LOG_EVERY == 0 or step == max_steps:
            elapsed = time.monotonic() - (started or begun)
            rate = (tokens_seen - COMPILE_STEPS * tokens.numel()) / elapsed if started else 0.0
            log.add(stage=name, step=step, seconds=round(elapsed, 2), done=round(done, 4),
                    tokens=tokens_seen, rate=rate, share=share, **losses.floats())  # fmt: skip
    _synchronise(device)


@dataclass(slots=True)
class Losses:
    """Of one step, still on the device."""

    next_token: Tensor
    written: Tensor
    mtp: Tensor
    index: list[Tensor]
    loads: list[Tensor]

    def floats(self) -> dict[str, Any]:
        """As numbers; waits for the device."""
        row: dict[str, Any] = {"loss": self.next_token.item(), "written": self.written.item(),
                               "mtp": self.mtp.item()}  # fmt: skip
        if not all(value == value for value in row.values()):
            raise ValueError(f"the loss is not a number: {row}; lower the rates in optimise.py")
        if self.index:
            row["kl"] = torch.stack([k.detach() for k in self.index]).mean().item()
        if self.loads:
            loads = torch.stack(self.loads)
            row["load_max"] = (loads.amax(1) / loads.mean(1)).max().item()
        return row


def _step(model: Model, stage: Stage, tokens: Tensor, weights: Tensor) -> Losses:
    with torch.set_grad_enabled(stage.mode != "warm"):  # warm: only what the indexer computes
        out = model(tokens, stage.mode)
        following, after, written = model.losses(out, tokens, weights)
    total = sum(out.index_losses, start=torch.zeros((), device=tokens.device))
    if stage.mode != "warm":
        total = total + following + stage.mtp_loss * after
    total.backward()
    return Losses(following.detach(), written, after.detach(), out.index_losses, out.loads)


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
