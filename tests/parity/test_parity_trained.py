"""The trained model in transformers and in the product: the same logits, far above index_topk.

Trained weights amplify what random ones forgive: transformers takes rotations of angles that it
rounds to fp32, which are off by 4e-5 at position 1,000, and its logits of up to 42 then lie 2e-3
from fp64, those of the artifact 4e-4. So it is given rotations of exact angles here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from harness import Player
from oracle import hf_logits, hf_model
from recipe.shape import read_shape
from tokenizers import Tokenizer
from torch import Tensor
from trained_fixtures import TRAINED

from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.runtime.load import Runtime, load
from lostwax.evals.task import Chat
from lostwax.evals.task_file import read_task
from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.server.formats.encoding_v32 import encode_messages

pytestmark = pytest.mark.slow  # half a minute

TOLERANCE = 1e-4
"""Of most rows absolutely, of all relative to the largest logit."""
FEW = 0.1
NUM_TOKENS = 1024
NUM_DECODED = 4


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    """In fp32, all rows of a prompt scored in one step."""
    captured = capture(open_checkpoint(TRAINED))
    sizes = Sizes(
        max_context=NUM_TOKENS, max_tokens=NUM_TOKENS, max_reqs=1, max_score_rows=NUM_TOKENS
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "artifact"
        parts = (captured.module, captured.facts, captured.weights)
        compile_module(*parts, "cpu", out, CompileOptions(dtype="f32", sizes=sizes))
        yield load(out, checkpoint=TRAINED)


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    """A held-out text with its answer: NUM_TOKENS tokens."""
    example = read_task(TRAINED.parent / "tasks" / f"needle_{NUM_TOKENS}.jsonl").examples[0]
    assert isinstance(example.request, Chat)
    text = encode_messages(example.request.messages, "chat") + str(example.completion)
    tokenizer = Tokenizer.from_file(str(TRAINED / "tokenizer.json"))
    return tokenizer.encode(text, add_special_tokens=False).ids


def transformers_logits(tokens: list[int], index_topk: int | None = None) -> Tensor:
    """Of every position, from the dequantised checkpoint in fp32; rotations by the trainer."""
    model = hf_model(TRAINED)
    cos, sin = read_shape(TRAINED / "config.json").rotations(NUM_TOKENS)
    rotary = model.model.rotary_emb

    def rotations(x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        exact = (t[position_ids].repeat(1, 1, 2) * rotary.attention_scaling for t in (cos, sin))
        return tuple(t.to(x.dtype) for t in exact)  # pyright: ignore[reportReturnType]

    rotary.forward = rotations
    for layer in model.model.layers if index_topk else ():
        layer.self_attn.indexer.index_topk = index_topk
    return hf_logits(model, [tokens])[0]


@pytest.fixture(scope="module")
def want(tokens: list[int]) -> Tensor:
    return transformers_logits(tokens)


def test_transformers_and_the_artifact_agree_in_fp32(
    runtime: Runtime, tokens: list[int], want: Tensor
) -> None:
    assert len(tokens) > 3 * runtime.facts.index_topk
    player = Player(runtime)
    request = player.open(tokens)
    rows = player.extend([(request, len(tokens) - NUM_DECODED)])
    rows += [row for _ in range(NUM_DECODED) for row in player.decode([request])]
    errors = (torch.cat([row.logits for row in rows]) - want).abs().amax(-1)
    assert len(errors) == len(tokens)
    assert float((errors > TOLERANCE).float().mean()) < FEW
    assert float(errors.max() / want.abs().max()) < TOLERANCE


def test_the_selection_is_part_of_what_agrees(tokens: list[int], want: Tensor) -> None:
    """Selecting everything gives other logits, so the agreement above says something of it."""
    errors = (transformers_logits(tokens, index_topk=NUM_TOKENS) - want).abs().amax(-1)
    assert float((errors > TOLERANCE).float().mean()) > 0.5
    assert float(errors.max() / want.abs().max()) > 10 * TOLERANCE
