"""Seven ways to build the model wrong: each must move the captured model away from transformers."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from oracle import hf_logits, hf_model
from reference_model import ReferenceModel, f32_module
from tiny import PLAIN, write_config
from xdsl.dialects import builtin
from xdsl.ir import Operation
from xdsl.rewriter import Rewriter

import lostwax.ir.reference.moe as reference_moe
from lostwax.frontend.checkpoint import Checkpoint, open_checkpoint
from lostwax.frontend.config import ModelConfig
from lostwax.frontend.new_checkpoint import new_checkpoint
from lostwax.ir.dialects.core import RopeOp
from lostwax.ir.dialects.dsa import AllOp, TopkOp
from lostwax.ir.dialects.mla import AttendOp
from lostwax.ir.dialects.moe import RouteOp

TOLERANCE = 1e-4
Tokens = NDArray[np.int32]
Op = TypeVar("Op", bound=Operation)
Mutation = Callable[[builtin.ModuleOp, ModelConfig], None]

NUM_TOKENS = 131  # far above index_topk 32: below it the indexer's mistakes are invisible


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("mutations")
    source = write_config(folder / "source", PLAIN)
    new_checkpoint(source, folder / "checkpoint", seed=0, format="fp32")
    return open_checkpoint(folder / "checkpoint")


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(7).integers(0, PLAIN["vocab_size"], NUM_TOKENS).astype(np.int32)


@pytest.fixture(scope="module")
def want(checkpoint: Checkpoint, tokens: Tokens):
    (logits,) = hf_logits(hf_model(checkpoint.folder), [tokens.tolist()])
    scores = torch.log_softmax(logits.double(), -1).numpy()
    return scores[np.arange(NUM_TOKENS), np.roll(tokens, -1)]


def error(model: ReferenceModel, tokens: Tokens, want: Any):
    scores, _ = model.step(tokens, np.roll(tokens, -1))
    return np.abs(scores - want).max()


def ops(module: builtin.ModuleOp, kind: type[Op]) -> list[Op]:
    return [op for op in module.walk() if isinstance(op, kind)]


def integer(value: int):
    return builtin.IntegerAttr(value, 64)


def interleave_the_indexers_rope(module: builtin.ModuleOp, config: ModelConfig):
    for op in ops(module, RopeOp):
        op.properties["interleaved"] = builtin.BoolAttr.from_bool(True)


def drop_mscale_squared(module: builtin.ModuleOp, config: ModelConfig):
    for op in ops(module, AttendOp):
        op.properties["scale"] = builtin.FloatAttr(config.qk_head_dim**-0.5, builtin.f64)


def skip_the_group_limit(module: builtin.ModuleOp, config: ModelConfig):
    for op in ops(module, RouteOp):
        op.properties["topk_group"] = op.n_group


def attend_to_everything(module: builtin.ModuleOp, config: ModelConfig):
    for op in ops(module, TopkOp):
        wide = builtin.IntegerAttr(2 * NUM_TOKENS, 64)
        kind = type(op.out.type).of([op.out.type.sizes[0], 2 * NUM_TOKENS], "i32")
        (attend,) = (use.operation for use in op.out.uses)
        assert isinstance(attend, AttendOp)
        new = AllOp.create(operands=[attend.positions], properties={"k": wide}, result_types=[kind])
        Rewriter.replace_op(op, new)


def rotate_the_wrong_half_of_the_query(module: builtin.ModuleOp, config: ModelConfig):
    for op in ops(module, RopeOp):
        op.properties["offset"] = integer(0)


MUTATIONS = [
    interleave_the_indexers_rope,
    drop_mscale_squared,
    skip_the_group_limit,
    attend_to_everything,
    rotate_the_wrong_half_of_the_query,
]


def test_the_model_without_mutation_equals_transformers(
    checkpoint: Checkpoint, tokens: Tokens, want: Any
):
    model = ReferenceModel(checkpoint, f32_module(checkpoint), NUM_TOKENS)
    assert error(model, tokens, want) < TOLERANCE


@pytest.mark.parametrize("mutate", MUTATIONS)
def test_a_wrong_module_is_noticed(
    checkpoint: Checkpoint, tokens: Tokens, want: Any, mutate: Mutation
):
    module = f32_module(checkpoint)
    before = str(module)
    mutate(module, checkpoint.config)
    assert str(module) != before
    module.verify()
    model = ReferenceModel(checkpoint, module, NUM_TOKENS)
    assert error(model, tokens, want) > 100 * TOLERANCE


def test_weighing_experts_by_biased_scores_is_noticed(
    checkpoint: Checkpoint, tokens: Tokens, want: Any, monkeypatch: pytest.MonkeyPatch
):
    right = reference_moe.route

    def wrong(logits: Any, bias: Any, positions: Any, **options: Any):
        ids, _ = right(logits, bias, positions, **options)
        biased = 1 / (1 + np.exp(-logits.astype(np.float64))) + bias.astype(np.float64)
        chosen = np.take_along_axis(biased, ids, axis=1)
        return ids, chosen / chosen.sum(-1, keepdims=True) * options["scale"]

    monkeypatch.setattr(reference_moe, "route", wrong)
    model = ReferenceModel(checkpoint, f32_module(checkpoint), NUM_TOKENS)
    assert error(model, tokens, want) > 100 * TOLERANCE


def test_a_k_norm_without_bias_is_noticed(checkpoint: Checkpoint, tokens: Tokens, want: Any):
    model = ReferenceModel(checkpoint, f32_module(checkpoint), NUM_TOKENS)
    for name, tensor in model.tensors.items():
        if name.endswith("k_norm.bias"):
            tensor[:] = 0
    assert error(model, tokens, want) > 100 * TOLERANCE
