"""Ways to build the model wrong: each must move the compiled artifact away from transformers.

A mutation edits the captured module, the weights or one kernel; never the product's source.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from harness import PROMPT, Build, Models, Mutation, Player
from oracle import hf_logits
from safetensors.torch import load_file, save_file
from tiny import CONFIGS
from xdsl.dialects import builtin
from xdsl.ir import Operation
from xdsl.rewriter import Rewriter

import lostwax.backends.portable.kernels.route as route_kernel
from lostwax.backends.plan.cover import Forced
from lostwax.backends.runtime.load import Runtime
from lostwax.frontend.config import ModelConfig
from lostwax.ir.dialects.core import RopeOp
from lostwax.ir.dialects.dsa import TopkOp
from lostwax.ir.dialects.mla import AttendOp
from lostwax.ir.dialects.moe import RouteOp
from lostwax.ir.types import TensorType

TOLERANCE = 1e-4
MARGIN = 100  # times the tolerance: no mutation hides near it
NUM_DECODED = 24  # enough that some row would choose beyond its groups
Tensors = dict[str, torch.Tensor]
T = TypeVar("T", bound=Operation)


def build(mutate: Mutation | None = None) -> Build:
    return Build("plain", max_context=192, max_reqs=1, mutate=mutate)


def errors(models: Models, runtime: Runtime) -> dict[str, float]:
    """The largest error of the logits in a prefill, and in decode steps after it."""
    tokens = build().tokens(PROMPT)
    (want,) = hf_logits(models.oracle("plain", 0, "fp32"), [tokens])
    player = Player(runtime)
    request = player.open(tokens)
    edge = PROMPT - NUM_DECODED
    (prefill,) = player.extend([(request, edge)])
    decoded = torch.cat([player.decode([request])[0].logits for _ in range(NUM_DECODED)])
    return {
        "prefill": float((prefill.logits - want[:edge]).abs().max()),
        "decode": float((decoded - want[edge:]).abs().max()),
    }


def assert_noticed(models: Models, runtime: Runtime) -> None:
    found = errors(models, runtime)
    assert min(found.values()) > MARGIN * TOLERANCE, found


def ops(module: builtin.ModuleOp, kind: type[T]) -> list[T]:
    found = [op for op in module.walk() if isinstance(op, kind)]
    assert found, f"the module has no {kind.name}"
    return found


def indexer_ropes(module: builtin.ModuleOp) -> list[RopeOp]:
    """The half-split ones, of query and key."""
    return [op for op in ops(module, RopeOp) if not op.interleaved.value.data]


def query_ropes(module: builtin.ModuleOp, config: ModelConfig) -> list[RopeOp]:
    """The attention's, of queries, whose rotated dimensions come last."""
    nope = config.qk_nope_head_dim
    return [op for op in ops(module, RopeOp) if op.offset.value.data == nope]


def interleave_the_indexers_rope(module: builtin.ModuleOp, config: ModelConfig) -> None:
    for op in indexer_ropes(module):
        op.properties["interleaved"] = builtin.BoolAttr.from_bool(True)


def rotate_the_last_half_of_the_indexers_dims(
    module: builtin.ModuleOp, config: ModelConfig
) -> None:
    for op in indexer_ropes(module):
        last = config.index_head_dim - config.qk_rope_head_dim
        op.properties["offset"] = builtin.IntegerAttr(last, 64)


def rotate_the_wrong_half_of_the_query(module: builtin.ModuleOp, config: ModelConfig) -> None:
    for op in query_ropes(module, config):
        op.properties["offset"] = builtin.IntegerAttr(0, 64)


def drop_mscale_squared(module: builtin.ModuleOp, config: ModelConfig) -> None:
    for op in ops(module, AttendOp):
        op.properties["scale"] = builtin.FloatAttr(config.qk_head_dim**-0.5, builtin.f64)


def scale_by_the_latent_width(module: builtin.ModuleOp, config: ModelConfig) -> None:
    """As if the absorbed form's 576 dimensions were the head's."""
    width = config.kv_lora_rank + config.qk_rope_head_dim
    scale = config.softmax_scale * (config.qk_head_dim / width) ** 0.5
    for op in ops(module, AttendOp):
        op.properties["scale"] = builtin.FloatAttr(scale, builtin.f64)


def skip_the_group_limit(module: builtin.ModuleOp, config: ModelConfig) -> None:
    for op in ops(module, RouteOp):
        op.properties["topk_group"] = op.n_group


def attend_to_everything(module: builtin.ModuleOp, config: ModelConfig) -> None:
    """Dense instead of sparse: more positions are selected than a request can have."""
    for op in ops(module, TopkOp):
        assert isinstance(op.out.type, TensorType)
        op.properties["k"] = builtin.IntegerAttr(2 * PROMPT, 64)
        wide = TensorType.of([op.out.type.sizes[0], 2 * PROMPT], "i32")
        Rewriter.replace_value_with_new_type(op.out, wide)


MODULE_MUTATIONS: list[Mutation] = [
    interleave_the_indexers_rope,
    rotate_the_last_half_of_the_indexers_dims,
    rotate_the_wrong_half_of_the_query,
    drop_mscale_squared,
    scale_by_the_latent_width,
    skip_the_group_limit,
    attend_to_everything,
]


def drop_the_bias_of_k_norm(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(tensor) if name.endswith("k_norm.bias") else tensor


def scale_the_shared_expert_too(name: str, tensor: torch.Tensor) -> torch.Tensor:
    wrong = name.endswith("shared_experts.down_proj.weight")
    return tensor * CONFIGS["plain"]["routed_scaling_factor"] if wrong else tensor


WEIGHT_MUTATIONS = [drop_the_bias_of_k_norm, scale_the_shared_expert_too]


def test_the_artifact_without_mutation_equals_transformers(models: Models) -> None:
    found = errors(models, models.runtime(build()))
    assert max(found.values()) < TOLERANCE, found


@pytest.mark.parametrize("mutate", MODULE_MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_a_wrong_module_is_noticed(models: Models, mutate: Mutation) -> None:
    assert_noticed(models, models.runtime(build(mutate)))


@pytest.mark.parametrize("mutate", WEIGHT_MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_wrong_weights_are_noticed(
    models: Models, tmp_path: Path, mutate: Callable[[str, torch.Tensor], torch.Tensor]
) -> None:
    own = models.checkpoint("plain", 0, "fp32").folder
    wrong = shutil.copytree(own, tmp_path / "wrong")
    changed = 0
    for file in wrong.glob("*.safetensors"):
        tensors: Tensors = load_file(file)
        edited = {name: mutate(name, tensor) for name, tensor in tensors.items()}
        changed += sum(edited[n] is not t for n, t in tensors.items())
        save_file(edited, file)
    assert changed
    assert_noticed(models, models.runtime(build(), wrong))


def test_weighing_experts_by_biased_scores_is_noticed(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = route_kernel.route
    calls = 0

    @wraps(right)  # only functions of kernels packages are called
    def wrong(logits: Any, bias: Any, positions: Any, ids: Any, weights: Any, **consts: Any):
        nonlocal calls
        calls += 1
        right(logits, bias, positions, ids, weights, **consts)
        biased = (torch.sigmoid(logits) + bias).gather(1, ids.clamp(min=0).long())
        scaled = biased / biased.sum(-1, keepdim=True) * consts["scale"]
        weights.copy_(scaled.masked_fill(ids < 0, 0))

    monkeypatch.setattr(route_kernel, "route", wrong)
    # loaded again: functions are bound at load
    forced = replace(build(), forced=(Forced("moe.route", "portable_route"),))
    runtime = models.runtime(forced, models.checkpoint("plain", 0, "fp32").folder)
    assert_noticed(models, runtime)
    assert calls, "no program calls the portable route kernel: mutate the one that it calls"
