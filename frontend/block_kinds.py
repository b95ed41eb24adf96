"""The block kinds of the model: their modules, inputs and results. Captures nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from lostwax.frontend.config import Kind, ModelConfig
from lostwax.frontend.importer import Argument
from lostwax.frontend.model.block import Block
from lostwax.frontend.model.head import Embed, Head, ScoringHead
from lostwax.ir.contract.step import STEP_INPUTS
from lostwax.ir.types import CacheType

CARRY = ("delta", "residual")
LAYER_INPUTS = ("positions", "slots", "q_starts", "page_table")
HEAD_INPUTS = ("logit_rows", "temperature", "seeds", "counters")
NOMINAL_LAYOUT = "bf16"


@dataclass(frozen=True, slots=True)
class BlockKind:
    """One function of the module. `prefixes` are those of the layers that call it.

    `shapes` gives each input's dimensions: numbers, or names of symbols (`T`, `B + 1`).
    """

    name: str
    build: Callable[[], nn.Module]
    prefixes: tuple[str, ...]
    arguments: Mapping[str, Argument]
    shapes: Mapping[str, tuple[int | str, ...]]
    dtypes: Mapping[str, str]


def block_kinds(config: ModelConfig, page_tokens: int) -> list[BlockKind]:
    """The kinds that this configuration has, each once."""

    def layer(kind: Kind) -> BlockKind:
        prefixes = tuple(
            f"model.layers.{n}."
            for n in range(config.num_hidden_layers)
            if config.layer_kind(n) == kind
        )
        caches = {
            "latent": (config.kv_lora_rank, config.qk_rope_head_dim),
            "index_key": (config.index_head_dim,),
        }
        types = {
            name: CacheType.of(name, "N", page_tokens, row, NOMINAL_LAYOUT)
            for name, row in caches.items()
        }
        inputs = (*CARRY, *LAYER_INPUTS)
        return _kind(config, kind, lambda: Block(config, kind), prefixes, inputs, types)

    scoring = (*CARRY, *HEAD_INPUTS, "targets")
    kinds = [
        _kind(config, "embed", lambda: Embed(config), ("",), ("tokens",), {}),
        layer("dense"),
        layer("moe"),
        _kind(config, "head", lambda: Head(config), ("",), (*CARRY, *HEAD_INPUTS), {}),
        _kind(config, "head_scores", lambda: ScoringHead(config), ("",), scoring, {}),
    ]
    return [k for k in kinds if k.prefixes]


def _kind(
    config: ModelConfig,
    name: str,
    build: Callable[[], nn.Module],
    prefixes: tuple[str, ...],
    inputs: tuple[str, ...],
    caches: Mapping[str, CacheType],
) -> BlockKind:
    arguments: dict[str, Argument] = {}
    shapes: dict[str, tuple[int | str, ...]] = {}
    dtypes: dict[str, str] = {}
    for value in inputs:
        carry = value in CARRY
        dims = ("T", config.hidden_size) if carry else STEP_INPUTS[value].dims
        shapes[value] = dims
        dtypes[value] = "bf16" if carry else STEP_INPUTS[value].dtype
        attrs = {"lostwax.carry" if carry else "lostwax.input": value}
        dynamic = {axis: d for axis, d in enumerate(dims) if isinstance(d, str)}
        arguments[value] = Argument(dynamic, attrs)
    for value, cache in caches.items():
        shapes[value] = ("N", cache.page_tokens.data, sum(cache.row))
        dtypes[value] = cache.layout.data
        arguments[value] = Argument({0: "N"}, {}, cache)
    return BlockKind(name, build, prefixes, arguments, shapes, dtypes)
