"""Small models with an MTP layer, compiled for the CPU, and traffic for them. Knows no test.

Their artifacts are `--batch-invariant`, so a verified row is bit for bit the row of plain decoding,
and answers are equal at any temperature: a token's noise is counted, not drawn.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from known_state import NotingRuntime
from safetensors.torch import load_file, save_file
from small import SMALL, options
from tiny import write_config

from lostwax.backends.compile import compile_module
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.runtime.load import Runtime, load
from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Failed, Submit
from lostwax.server.engine.options import EngineOptions

PAGE = 16
NUM_PAGES = 60
SIZES = Sizes(max_context=192, max_tokens=48, max_reqs=4, max_score_rows=8, max_drafts=3)
MTP_LAYER = 2


def mostly_right(tensors: dict[str, torch.Tensor]) -> None:
    """Make the layers whisper, and the MTP layer repeat what the main model does with a token.

    Then both predict from the last token's embedding, and differ where the layers speak up.
    """
    prefix, hidden = f"model.layers.{MTP_LAYER}.", SMALL["hidden_size"]
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor *= 0.15
    tensors[prefix + "eh_proj.weight"] = torch.eye(hidden, 2 * hidden)
    tensors[prefix + "enorm.weight"] = torch.ones(hidden)
    tensors[prefix + "shared_head.norm.weight"] = tensors["model.norm.weight"].clone()


def write_checkpoint(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], None] | None = None
) -> Path:
    """A random fp32 checkpoint with an MTP layer, whose weights `change` changes."""
    config = write_config(folder, SMALL | {"num_nextn_predict_layers": 1})
    out = folder / "checkpoint"
    new_checkpoint(config, out, seed=0, format="fp32")
    if change is not None:
        (file,) = out.glob("*.safetensors")
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)
    return out


def compiled(
    folder: Path,
    change: Callable[[dict[str, torch.Tensor]], None] | None,
    sizes: Sizes = SIZES,
    num_pages: int = NUM_PAGES,
) -> Runtime:
    """A model whose weights `change` changes, loaded."""
    checkpoint = write_checkpoint(folder, change)
    c = capture(open_checkpoint(checkpoint), PAGE)
    chosen = options(sizes=sizes, batch_invariant=True)
    compile_module(c.module, c.facts, c.weights, "cpu", folder / "artifact", chosen)
    return load(folder / "artifact", checkpoint=checkpoint, num_pages=num_pages, threads=1)


def prompts(count: int, seed: int, max_tokens: int = 14) -> list[Submit]:
    """Random prompts, most of them longer than index_topk 32, half of them sampled."""
    rng = random.Random(seed)
    return [
        Submit(
            request=str(i),
            prompt=[rng.randrange(SMALL["vocab_size"]) for _ in range(rng.randrange(1, 90))],
            max_tokens=rng.randrange(1, max_tokens + 1),
            temperature=rng.choice([0.0, 1.0]),
            seed=rng.randrange(2**31),
            ignore_eos=True,
        )
        for i in range(count)
    ]


@dataclass
class Answers:
    """What one engine gave to a list of requests."""

    tokens: dict[str, list[int]]
    core: EngineCore
    num_states: int
    """Rows of the state that were held against what the engine knew."""


def answers(
    runtime: Runtime,
    submits: list[Submit],
    drafts: int,
    depth: int = 0,
    disturb: Callable[[EngineCore], None] = lambda _: None,
    num_pages: int = NUM_PAGES,
) -> Answers:
    """Run the requests, as many at once as the engine takes; `disturb` may do so behind each step.

    After each step the state must be what the engine knows.
    """
    noting = NotingRuntime(runtime)
    noting.limits = msgspec.structs.replace(runtime.limits, num_pages=num_pages)
    core = EngineCore(noting, EngineOptions(drafts), depth=depth)
    tokens: dict[str, list[int]] = {s.request: [] for s in submits}
    for submit in submits:
        assert core.handle(submit) == []
    num_states = 0
    while core.has_work:
        for event in core.step():
            assert not isinstance(event, Failed), event
            tokens[event.request] += [score.token for score in event.tokens]
        core.scheduler.check_integrity()
        num_states += noting.check(core.scheduler.running)
        disturb(core)
    assert core.scheduler.pages.num_free == core.scheduler.pages.num_usable
    return Answers(tokens, core, num_states)


def cached_rows(
    runtime: Runtime, pages: list[int], count: int
) -> dict[tuple[str, int], torch.Tensor]:
    """The first `count` cached rows of a request, of every plane and layer."""
    sizes = {plane.name: plane for plane in runtime.manifest.planes}
    found: dict[tuple[str, int], torch.Tensor] = {}
    for (name, layer), buffer in runtime.memory.planes.items():
        row_bytes = sizes[name].page_bytes // PAGE
        rows = torch.from_numpy(buffer).view(-1, PAGE, row_bytes)[pages].reshape(-1, row_bytes)
        found[name, layer] = rows[:count].clone()
    return found
