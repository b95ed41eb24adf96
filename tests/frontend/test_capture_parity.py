"""The captured module, run by its fp64 reference, is transformers' model: before any compiling."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from oracle import dequantised, hf_logits, hf_model
from tiny import DEEP, ODD, PLAIN, write_config
from xdsl.context import Context

from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import open_checkpoint
from lostwax.frontend.new_checkpoint import new_checkpoint
from lostwax.ir.dialects import context
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.reference.interpret import evaluate_step

PAGE = 16
TOLERANCE = 1e-4  # of log-probabilities, as the issue asks of logits


def f32_module(checkpoint):
    captured = capture(checkpoint, page_tokens=PAGE)
    ctx: Context = context()
    AssignFormatsPass(dtype="f32").apply(ctx, captured.module)
    captured.module.verify()
    return captured


class Model:
    """One request in its own pages, run step by step through `@step_scores`."""

    def __init__(self, checkpoint, num_tokens):
        captured = f32_module(checkpoint)
        self.module, self.table = captured.module, captured.weights
        self.tensors = {n: t.numpy() for n, t in dequantised(checkpoint.folder).items()}
        config, pages = checkpoint.config, -(-num_tokens // PAGE)
        rows = {
            "latent": config.kv_lora_rank + config.qk_rope_head_dim,
            "index_key": config.index_head_dim,
        }
        self.caches = {
            (layer, plane): np.zeros((pages + 1, PAGE, row), np.float32)
            for layer in range(config.num_hidden_layers)
            for plane, row in rows.items()
        }
        self.pages = np.random.default_rng(0).permutation(np.arange(1, pages + 1)).astype(np.int32)
        self.length = 0

    def weight(self, name, _):
        parts = [self.tensors[s.tensor] for s in self.table[name]]
        return np.stack(parts) if ".mlp.experts." in name else parts[0]

    def step(self, tokens, targets):
        """Target log-probabilities and picked ids of the rows of one chunk."""
        count = len(tokens)
        positions = np.arange(self.length, self.length + count, dtype=np.int32)
        self.length += count
        ints = {
            "tokens": tokens,
            "positions": positions,
            "slots": self.pages[positions // PAGE] * PAGE + positions % PAGE,
            "q_starts": [0, count],
            "kv_lens": [self.length],
            "page_table": self.pages[None],
            "logit_rows": np.arange(count),
            "seeds": np.zeros(count),
            "counters": np.zeros(count),
            "targets": targets,
        }
        inputs = {n: np.asarray(v, np.int32) for n, v in ints.items()}
        inputs["temperature"] = np.zeros(count, np.float32)
        ids, _, scores, _, _ = evaluate_step(
            self.module, "step_scores", inputs, self.weight, self.caches
        )
        return scores, ids


@pytest.mark.parametrize(
    ("config", "format", "seed"),
    [(PLAIN, "fp32", 0), (ODD, "fp32", 1), (DEEP, "bf16", 2), (ODD, "fp8", 3)],
    ids=["plain", "odd", "deep-bf16", "odd-fp8"],
)
def test_prefill_chunks_and_decode_equal_transformers(tmp_path, config, format, seed):
    source = write_config(tmp_path / "source", config)
    new_checkpoint(source, tmp_path / "checkpoint", seed=seed, format=format)
    checkpoint = open_checkpoint(tmp_path / "checkpoint")
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, config["vocab_size"], 135).astype(np.int32)
    (logits,) = hf_logits(hf_model(checkpoint.folder), [tokens.tolist()])
    log_probabilities = torch.log_softmax(logits.double(), -1).numpy()
    targets = np.append(tokens[1:], 0)
    want = log_probabilities[np.arange(len(tokens)), targets]

    model = Model(checkpoint, len(tokens))
    edges = [0, 70, 131, 132, 133, 134, 135]  # two chunks, then one token at a time
    got = [model.step(tokens[a:b], targets[a:b]) for a, b in pairwise(edges)]
    scores, ids = (np.concatenate(parts) for parts in zip(*got, strict=True))
    np.testing.assert_allclose(scores, want, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(ids, log_probabilities.argmax(-1))
