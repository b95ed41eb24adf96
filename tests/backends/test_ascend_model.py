"""A whole model through the Ascend lowerings over CPU twins, beside the same model on the CPU.

Interpreted, never executed: no NPU has run this.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from ascend_twin import TWIN, TWIN_TARGET
from harness import Player
from model_formats import FP8
from tiny import WIDE, write_config
from trained_fixtures import TRAINED

from lostwax.backends.ascend.twins.register import register
from lostwax.backends.compile import CompileOptions, compile_module
from lostwax.backends.plan.sizes import Sizes
from lostwax.backends.runtime.load import load
from lostwax.frontend.capture import Captured, capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint
from lostwax.server.gateway.tokenizer_file import read_tokenizer

CONFIG = WIDE | FP8 | {"torch_dtype": "bfloat16", "n_group": 2, "topk_group": 1}
"""Ranks and heads that CANN's operators take; 32 positions are selected."""
VOCAB = 512
PROMPT, DECODED = 90, 4
"""Of which the first are run in two chunks: rows see what other steps have cached."""
NUM_PAGES = 24


@dataclass(frozen=True)
class Ran:
    """Logits of every row of a text, and its mean negative log-likelihood a token."""

    logits: torch.Tensor
    loss: float


class Models:
    """A checkpoint and its artifacts, each made once."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        self._checkpoint, self._folder = checkpoint, folder
        self.ran = cache(self._ran)
        self.captured = cache(self._capture)

    def _capture(self) -> Captured:
        return capture(open_checkpoint(self._checkpoint))

    def _ran(self, target: str, dtype: str, weights: str, text: tuple[int, ...]) -> Ran:
        captured, out = self.captured(), self._folder / f"{target}-{dtype}-{weights}"
        options = CompileOptions(
            dtype=dtype,
            weights=weights,
            sizes=Sizes(max_context=1024, max_tokens=64, max_reqs=2, max_score_rows=64),
            extra_backends=(TWIN,),
        )
        compile_module(captured.module, captured.facts, captured.weights, target, out, options)
        runtime = load(
            out, checkpoint=self._checkpoint, num_pages=NUM_PAGES, extra_backends=(TWIN,)
        )
        return ran(Player(runtime), text)


def ran(player: Player, text: tuple[int, ...]) -> Ran:
    """The text's rows: all but the last few by prefill, in chunks beside another request's."""
    request, other = player.open(text), player.open(text[:7])
    found: list[torch.Tensor] = []
    left = len(text) - DECODED
    while left:
        count = min(left, 48)
        parts = [(request, count)] + ([(other, 7)] if other.done == 0 else [])
        found.append(player.extend(parts)[0].logits)
        left -= count
    for _ in range(DECODED):
        found.append(player.decode([request], scores=True)[0].logits)
    logits = torch.cat([each.float() for each in found])
    chances = torch.log_softmax(logits[:-1], -1)
    told = torch.tensor(text[1:])[:, None]
    return Ran(logits, float(-chances.gather(1, told).mean()))


@pytest.fixture(scope="module", autouse=True)
def twins() -> object:
    """Loading asks for the operators before it makes a driver."""
    return register()


@pytest.fixture(scope="module")
def little(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("little")
    source = write_config(folder / "source", CONFIG)
    new_checkpoint(source, folder / "checkpoint", seed=0, format="fp8")
    return Models(folder / "checkpoint", folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(TRAINED, tmp_path_factory.mktemp("trained"))


def off(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Of each row RMS of the difference by the RMS of what is wanted."""
    difference = (found - wanted).square().mean(-1).sqrt()
    return difference / wanted.square().mean(-1).sqrt()


def little_text() -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, VOCAB, (PROMPT + DECODED,), generator=generator)
    return tuple(ids.tolist())


@pytest.mark.parametrize(
    ("weights", "bound"),
    [pytest.param("dequantised", 0.01, marks=pytest.mark.slow), ("int8", 0.03)],
)
def test_a_whole_model_gives_what_it_gives_on_the_cpu(
    little: Models, weights: str, bound: float
) -> None:
    """In bf16 beside f32: what is off is rounding, of int8 too where weights are.

    The bound is half of the rows'; nine of ten are within five times of it. Where rounding makes a
    row choose another expert it is further off, on the CPU, too.
    """
    want = little.ran("cpu", "f32", "model", little_text())
    found = little.ran(TWIN_TARGET.name, "bf16", weights, little_text())
    rows = off(found.logits, want.logits)
    assert float(rows.median()) < bound
    assert float(rows.quantile(0.9)) < 5 * bound


TEXT = (
    "What is 17 + 25?\n17 + 25 = 37 + 5 = 42\nThe answer is 42.\nThere are 14 boxes with 6 cups"
    " each. 20 cups are given away. How many are left?\nThe boxes hold 14 * 6 = 84 cups. 84 - 20 ="
    " 64 cups are left.\n"
) * 3
"""More positions than the tiny model selects."""


@pytest.mark.slow
def test_int8_costs_the_trained_model_little(
    trained: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    from tokenizers import Tokenizer

    told = read_tokenizer(TRAINED)
    assert told is not None
    text = tuple(Tokenizer.from_str(told.decode()).encode(TEXT).ids)
    assert len(text) > 256, "the indexer chooses"
    exact = trained.ran("cpu", "f32", "model", text)
    wide = trained.ran(TWIN_TARGET.name, "bf16", "dequantised", text)
    int8 = trained.ran(TWIN_TARGET.name, "bf16", "int8", text)
    with capsys.disabled():
        for name, each in (("cpu f32", exact), ("twins bf16", wide), ("twins W8A8", int8)):
            rows = float(off(each.logits, exact.logits).median())
            same = (each.logits.argmax(-1) == exact.logits.argmax(-1)).float().mean()
            print(f"{name}: loss {each.loss:.4f}, logits {rows:.4f} off, {same:.1%} same best")
    assert abs(wide.loss - exact.loss) < 0.02
    assert abs(int8.loss - exact.loss) < 0.05
