"""The captured module as an executable fp64 model: what parity and mutation tests run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from oracle import dequantised
from xdsl.dialects import builtin, func

from lostwax.backends.runtime.mask_gate import Masks
from lostwax.frontend.capture import capture
from lostwax.frontend.checkpoint import Checkpoint
from lostwax.ir.contract.masks import mask_words
from lostwax.ir.dialects import context
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.reference.cache_bytes import empty_cache
from lostwax.ir.reference.interpret import evaluate_step
from lostwax.ir.types import CacheType

PAGE = 16


def f32_module(checkpoint: Checkpoint) -> builtin.ModuleOp:
    """The captured module with everything in f32."""
    module = capture(checkpoint, page_tokens=PAGE).module
    AssignFormatsPass(dtype="f32").apply(context(), module)
    module.verify()
    return module


def _cache_types(module: builtin.ModuleOp) -> set[CacheType]:
    functions = [f for f in module.ops if isinstance(f, func.FuncOp)]
    kinds = [kind for f in functions for kind in f.function_type.inputs]
    return {kind for kind in kinds if isinstance(kind, CacheType)}


class ReferenceModel:
    """One request in its own pages, run chunk by chunk through `@body` and `@score`."""

    def __init__(self, checkpoint: Checkpoint, module: builtin.ModuleOp, num_tokens: int) -> None:
        self.module, self.table = module, checkpoint.weights
        self.tensors = {n: t.numpy() for n, t in dequantised(checkpoint.folder).items()}
        config, pages = checkpoint.config, -(-num_tokens // PAGE)
        self.caches: dict[tuple[int, str], Any] = {
            (layer, kind.plane.data): empty_cache(kind.layout.data, pages + 1, PAGE, kind.row)
            for layer in range(config.num_hidden_layers)
            for kind in _cache_types(module)
        }
        self.pages = np.random.default_rng(0).permutation(np.arange(1, pages + 1)).astype(np.int32)
        self.length = 0
        self.vocab_size = config.vocab_size

    def weight(self, name: str, kind: object) -> Any:
        """A logical weight in f32, routed experts stacked."""
        parts = [self.tensors[s.tensor] for s in self.table[name]]
        return np.stack(parts) if ".mlp.experts." in name else parts[0]

    def step(
        self, tokens: NDArray[Any], targets: NDArray[Any], masks: Masks | None = None
    ) -> tuple[Any, Any]:
        """Log-probabilities of the targets, and picked ids, of each row of one chunk; `masks` has
        one for each of them."""
        count = len(tokens)
        positions = np.arange(self.length, self.length + count, dtype=np.int32)
        self.length += count
        ints: dict[str, Any] = {
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
        inputs: dict[str, Any] = {n: np.asarray(v, np.int32) for n, v in ints.items()}
        inputs["temperature"] = np.zeros(count, np.float32)
        inputs["top_k"] = np.zeros(count, np.int32)
        inputs["count_rows"] = np.full(count, -1, np.int32)
        inputs["recent"] = np.full((count, 3), -1, np.int32)
        inputs["repetition"] = np.ones(count, np.float32)
        inputs["frequency"] = inputs["presence"] = np.zeros(count, np.float32)
        inputs["bias_rows"] = np.full(count, -1, np.int32)
        inputs["top_p"] = np.ones(count, np.float32)
        inputs["min_p"] = np.zeros(count, np.float32)
        inputs["mask_rows"] = np.full(count, -1, np.int32)
        inputs["counts"] = np.zeros((1, self.vocab_size), np.int32)
        inputs["biases"] = np.zeros((1, self.vocab_size), np.float32)
        inputs["masks"] = np.zeros((1, mask_words(self.vocab_size)), np.int32)
        if masks is not None:
            inputs["mask_rows"], inputs["masks"] = np.arange(count, dtype=np.int32), masks
        (hidden,) = evaluate_step(self.module, "body", inputs, self.weight, self.caches)
        inputs["hidden"] = hidden
        ids, _, scores, *_ = evaluate_step(self.module, "score", inputs, self.weight, self.caches)
        return scores, ids
