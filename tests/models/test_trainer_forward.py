"""The trainer's own forward against the product's: the model that is trained is the one served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from recipe.checkpoint import read_checkpoint, write_checkpoint
from recipe.model import Mode, Model
from recipe.shape import read_shape
from recipe.weights import Weights
from reference_model import ReferenceModel, f32_module
from tiny import PLAIN, write_config

from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint

NUM_TOKENS = 80  # beyond index_topk, 32


def trained_logprobs(folder: Path, tokens: torch.Tensor, mode: Mode) -> torch.Tensor:
    shape = read_shape(folder / "config.json")
    weights = Weights(shape)
    read_checkpoint(shape, weights, folder)
    model = Model(shape, weights.double(), torch.float64)
    with torch.no_grad():
        out = model(tokens[None], mode)
        return model.logits(out.hidden)[0].log_softmax(-1)


@pytest.fixture(scope="module")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With an MTP layer: the trainer has one always."""
    folder = tmp_path_factory.mktemp("trainer")
    config = write_config(folder / "in", PLAIN | {"num_nextn_predict_layers": 1})
    new_checkpoint(config, folder / "out", seed=3, format="fp8")
    return folder / "out"


def test_trainer_and_reference_agree_beyond_index_topk(checkpoint_folder: Path) -> None:
    checkpoint = open_checkpoint(checkpoint_folder)
    tokens = torch.randint(0, PLAIN["vocab_size"], (NUM_TOKENS,), generator=torch.manual_seed(5))
    reference = ReferenceModel(checkpoint, f32_module(checkpoint), NUM_TOKENS)
    targets = tokens.roll(-1)
    want, _ = reference.step(tokens.numpy(), targets.numpy())
    got = trained_logprobs(checkpoint_folder, tokens, "sparse")
    got = got.gather(-1, targets[:, None])[:, 0].numpy()
    np.testing.assert_allclose(got, np.asarray(want, np.float64), atol=1e-4)
    dense = trained_logprobs(checkpoint_folder, tokens, "dense").gather(-1, targets[:, None])
    assert np.abs(dense[:, 0].numpy() - got).max() > 0.01  # the selection is no formality


def test_what_is_written_is_read_back_the_same(checkpoint_folder: Path, tmp_path: Path) -> None:
    shape = read_shape(checkpoint_folder / "config.json")
    first, second = Weights(shape), Weights(shape)
    read_checkpoint(shape, first, checkpoint_folder)
    write_checkpoint(shape, first, tmp_path)
    read_checkpoint(shape, second, tmp_path)
    for (name, a), (_, b) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(a, b), name
