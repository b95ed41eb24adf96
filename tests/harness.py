"""Compiles tiny checkpoints once a session and plays requests on the loaded artifacts.

Gives the full logits of every row that a step was asked for. Knows no server and no oracle's code.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from oracle import Model, hf_model
from step_oracle import StepBatch, plan_of
from tiny import CONFIGS, write_config
from torch import Tensor
from xdsl.dialects import builtin

from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.formats import Formats
from lostwax.backends.plan.cover import Forced
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.runtime.load import Runtime, load
from lostwax.backends.runtime.tensors import tensor_of
from lostwax.frontend.capture import Captured, capture
from lostwax.frontend.checkpoint import Checkpoint, open_checkpoint
from lostwax.frontend.config import ModelConfig
from lostwax.frontend.new_checkpoint import Format, new_checkpoint
from lostwax.ir.contract.program import Launch, View, views_of
from lostwax.ir.contract.step import StepResult
from lostwax.ir.contract.step_plan import StepPlan

Mutation = Callable[[builtin.ModuleOp, ModelConfig], None]
NUM_PAGES = 40
PROMPT = 150
"""Tokens of a long prompt: far above `index_topk` 32, below which the indexer is invisible."""


@dataclass(frozen=True)
class Build:
    """One artifact. `dtype` f32 is `--dtype fp32`."""

    config: str
    seed: int = 0
    format: Format = "fp32"
    dtype: str = "f32"
    weights: str = "model"
    formats: Formats = field(default_factory=Formats)
    forced: tuple[Forced, ...] = ()
    page_tokens: int = 64
    max_context: int = 256
    max_reqs: int = 4
    mutate: Mutation | None = None

    @property
    def vocab(self) -> int:
        """Ids of the vocabulary."""
        return CONFIGS[self.config]["vocab_size"]

    @property
    def name(self) -> str:
        """A name for test reports."""
        pages = f"-pages{self.page_tokens}" if self.page_tokens != 64 else ""
        held = f"-{self.weights}" if self.weights != "model" else ""
        return f"{self.config}{self.seed}-{self.format}-as-{self.dtype}{held}{pages}"

    def tokens(self, count: int, seed: int = 0) -> list[int]:
        """Random ids."""
        rng = random.Random(f"{self.seed}.{seed}")
        return [rng.randrange(self.vocab) for _ in range(count)]


class Models:
    """Checkpoints, oracles and artifacts below one folder, each made once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.checkpoint = cache(self._checkpoint)
        self.oracle = cache(self._oracle)
        self._captured = cache(self._capture)
        self.artifact = cache(self._artifact)
        self.runtime = cache(self._runtime)

    def _checkpoint(self, config: str, seed: int, format: Format) -> Checkpoint:
        folder = self._folder / f"{config}-{seed}-{format}"
        source = write_config(folder / "source", CONFIGS[config])
        new_checkpoint(source, folder / "checkpoint", seed=seed, format=format)
        return open_checkpoint(folder / "checkpoint")

    def _oracle(self, config: str, seed: int, format: Format) -> Model:
        return hf_model(self.checkpoint(config, seed, format).folder)

    def _capture(self, config: str, seed: int, format: Format, page_tokens: int) -> Captured:
        return capture(self.checkpoint(config, seed, format), page_tokens)

    def _artifact(self, build: Build) -> Path:
        stored = (build.config, build.seed, build.format)
        checkpoint, captured = self.checkpoint(*stored), self._captured(*stored, build.page_tokens)
        module = captured.module
        if build.mutate is not None:
            module = module.clone()
            build.mutate(module, checkpoint.config)
            module.verify()
            assert str(module) != str(captured.module), f"{build.mutate} changed nothing"
        options = CompileOptions(
            dtype=build.dtype,
            weights=build.weights,
            formats=build.formats,
            forced=build.forced,
            sizes=Sizes(
                max_context=build.max_context,
                max_tokens=160,
                max_reqs=build.max_reqs,
                max_score_rows=160,
            ),
        )
        out = self._folder / f"artifact-{len(list(self._folder.iterdir()))}"
        compile_module(module, captured.facts, captured.weights, "cpu", out, options)
        return out

    def _runtime(self, build: Build, checkpoint: Path | None = None) -> Runtime:
        """The loaded artifact; `checkpoint` puts other weights in place of the build's own."""
        own = self.checkpoint(build.config, build.seed, build.format).folder
        return load(self.artifact(build), checkpoint=checkpoint or own, num_pages=NUM_PAGES)


@dataclass
class Request:
    """One request in pages of its own, of which `done` tokens are cached."""

    tokens: list[int]
    pages: list[int]
    done: int = 0


@dataclass(frozen=True)
class Rows:
    """What one step gave one request: logits [rows, vocab] of its rows and what was picked."""

    first: int  # position of the first row
    logits: Tensor
    ids: list[int]
    logprobs: list[float]
    target_logprobs: list[float]
    program: str


Part = tuple[Request, int]
"""A request and how many of its tokens run next."""


@dataclass
class Player:
    """Plays steps over pages handed out in a shuffled order; checks each against itself."""

    runtime: Runtime
    free: list[int] = field(default_factory=list[int])

    def __post_init__(self) -> None:
        self.free = list(range(1, self.runtime.limits.num_pages))
        random.Random(0).shuffle(self.free)

    def open(self, tokens: Sequence[int], room: int = 0) -> Request:
        """A request with pages for its tokens and `room` more."""
        count = -(-(len(tokens) + room) // self.runtime.limits.page_tokens)
        return Request(list(tokens), [self.free.pop() for _ in range(count)])

    def close(self, request: Request) -> None:
        """Give the pages back as they are; they are the next that `open` hands out."""
        self.free += request.pages

    def decode(self, requests: Sequence[Request], *, scores: bool = False) -> list[Rows]:
        """One token of each request, as a decode step."""
        return self._step("decode", [(r, 1) for r in requests], scores)

    def extend(self, parts: Sequence[Part], *, scores: bool = True) -> list[Rows]:
        """A chunk of each request. Without `scores`, logits of each chunk's last row only."""
        return self._step("extend", parts, scores)

    def _step(
        self, entry: Literal["decode", "extend"], parts: Sequence[Part], scores: bool
    ) -> list[Rows]:
        batch, spans = _batch(entry, parts, scores, self.runtime.limits.page_tokens)
        plan = plan_of(batch, self.runtime.limits.page_tokens)
        result = self.runtime.run(plan)
        logits = logits_of(self.runtime, plan)
        _check_result(batch, result, logits)
        given: list[Rows] = []
        for (request, count), rows in zip(parts, spans, strict=True):
            num_rows = rows.stop - rows.start
            first = request.done + count - num_rows
            request.done += count
            given.append(
                Rows(
                    first,
                    logits[rows],
                    result.ids[rows],
                    result.logprobs[rows],
                    result.target_logprobs[rows],
                    result.program,
                )
            )
        return given


def _batch(
    entry: Literal["decode", "extend"], parts: Sequence[Part], scores: bool, page_tokens: int
) -> tuple[StepBatch, list[slice]]:
    """The step's inputs, and which logit rows are each part's."""
    tokens, positions, slots, targets, logit_rows = ([] for _ in range(5))  # five lists of int
    starts, spans = [0], list[slice]()
    for request, count in parts:
        run = range(request.done, request.done + count)
        assert run.stop <= len(request.tokens)
        wanted = run if scores else run[-1:]
        spans.append(slice(len(logit_rows), len(logit_rows) + len(wanted)))
        logit_rows += [len(tokens) + p - run.start for p in wanted]
        targets += [[*request.tokens, -1][p + 1] for p in wanted]
        tokens += request.tokens[run.start : run.stop]
        positions += run
        slots += [request.pages[p // page_tokens] * page_tokens + p % page_tokens for p in run]
        starts.append(len(tokens))
    batch = StepBatch(
        entry=entry,
        tokens=tokens,
        positions=positions,
        slots=slots,
        q_starts=starts,
        kv_lens=[r.done + n for r, n in parts],
        page_table=[r.pages[: -(-(r.done + n) // page_tokens)] for r, n in parts],
        logit_rows=logit_rows,
        temperature=[0.0] * len(logit_rows),
        seeds=[0] * len(logit_rows),
        counters=[0] * len(logit_rows),
        targets=targets,
        top_k=[0] * len(logit_rows),
        top_p=[1.0] * len(logit_rows),
        min_p=[0.0] * len(logit_rows),
        count_rows=[-1] * len(logit_rows),
        recent=[[-1, -1, -1] for _ in logit_rows],
        repetition=[1.0] * len(logit_rows),
        frequency=[0.0] * len(logit_rows),
        presence=[0.0] * len(logit_rows),
        bias_rows=[-1] * len(logit_rows),
        mask_rows=[-1] * len(logit_rows),
        bias=[{} for _ in logit_rows],
        head="score" if scores else "pick",
    )
    return batch, spans


def logits_of(runtime: Runtime, plan: StepPlan) -> Tensor:
    """The logits [rows, vocab] that the step that just ran picked from.

    They lie in the arena where the launch that writes `logprobs` reads them, and nothing runs after
    the head's last reader that could overwrite them.
    """
    ((_, head),) = runtime.programs.pick(plan)
    program = runtime.bound(head).program
    wanted = (program.bucket.rows, runtime.limits.vocab_size)
    (view,) = {
        view
        for launch in program.blocks[program.calls[-1].block]
        if program.outputs["logprobs"] in _views(launch)
        for view in _views(launch)
        if view.shape == wanted
    }
    arena = torch.as_tensor(runtime.memory.arena)  # either kind of memory
    return tensor_of(arena, view)[: plan.num_logits].float().clone()


def _views(launch: Launch) -> list[View]:
    return list(views_of(launch))


def _check_result(batch: StepBatch, result: StepResult, logits: Tensor) -> None:
    """What a step returns follows from its logits."""
    logprobs = logits.double().log_softmax(-1)
    assert result.ids == logits.argmax(-1).tolist()
    close: Any = torch.testing.assert_close
    tight = {"rtol": 0, "atol": 1e-5}
    close(torch.tensor(result.logprobs).double(), logprobs.max(-1).values, **tight)
    if batch.head == "score":
        targets = torch.tensor(batch.targets)
        of_target = logprobs.gather(1, targets.clamp(min=0)[:, None])[:, 0]
        want = of_target.masked_fill(targets < 0, 0)
        close(torch.tensor(result.target_logprobs).double(), want, **tight)
        top = torch.sort(logits, dim=-1, descending=True, stable=True).indices[:, :20]
        assert result.top_ids == top.tolist()
        close(torch.tensor(result.top_logprobs).double(), logprobs.gather(1, top), **tight)


def error_of(rows: Rows, want: Tensor) -> float:
    """The largest difference from the oracle's logits [tokens, vocab] of the whole request."""
    return float((rows.logits - want[rows.first : rows.first + len(rows.logits)]).abs().max())
