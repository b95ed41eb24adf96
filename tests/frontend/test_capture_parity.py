"""The captured module, run by its fp64 reference, is transformers' model: before any compiling."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import hf_logits, hf_model
from reference_model import ReferenceModel, f32_module
from tiny import DEEP, ODD, PLAIN, Config, write_config

from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.frontend.new_checkpoint import Format, new_checkpoint

TOLERANCE = 1e-4  # of log-probabilities, where transformers itself is good to 2e-6


@pytest.mark.parametrize(
    ("config", "format", "seed"),
    [(PLAIN, "fp32", 0), (ODD, "fp32", 1), (DEEP, "bf16", 2), (ODD, "fp8", 3)],
    ids=["plain", "odd", "deep-bf16", "odd-fp8"],
)
def test_prefill_chunks_and_decode_equal_transformers(
    tmp_path: Path, config: Config, format: Format, seed: int
):
    source = write_config(tmp_path / "source", config)
    new_checkpoint(source, tmp_path / "checkpoint", seed=seed, format=format)
    checkpoint = open_checkpoint(tmp_path / "checkpoint")
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, config["vocab_size"], 135).astype(np.int32)
    (logits,) = hf_logits(hf_model(checkpoint.folder), [tokens.tolist()])
    log_probabilities = torch.log_softmax(logits.double(), -1).numpy()
    targets = np.append(tokens[1:], 0)
    want = log_probabilities[np.arange(len(tokens)), targets]

    model = ReferenceModel(checkpoint, f32_module(checkpoint), len(tokens))
    edges = [0, 70, 131, 132, 133, 134, 135]  # two chunks, then one token at a time
    got = [model.step(tokens[a:b], targets[a:b]) for a, b in pairwise(edges)]
    scores, ids = (np.concatenate(parts) for parts in zip(*got, strict=True))
    np.testing.assert_allclose(scores, want, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(ids, log_probabilities.argmax(-1))
