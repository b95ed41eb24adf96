"""The block kinds of the model: their modules, inputs and results. Captures nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from lostwax.frontend.config import Kind, ModelConfig
from lostwax.frontend.importer import Argument
from lostwax.frontend.model.block import Block
from lostwax.frontend.model.head import Embed, Head, ScoringHead
from lostwax.frontend.model.mtp import DraftHead, Mtp
from lostwax.ir.contract.step import HIDDEN, STEP_INPUTS
from lostwax.ir.types import CacheType

CARRY = ("delta", "residual")
LAYER_INPUTS = ("positions", "slots", "q_starts", "page_table")
HEAD_INPUTS = ("logit_rows", "temperature", "seeds", "counters")
NOMINAL_LAYOUT = "bf16"


@dataclass(frozen=True, slots=True)
class BlockKind:
    """One function of the module. `prefixes` are those of the layers that call it.

    `shapes` gives each input's dimensions: numbers, or names of symbols (`T`, `B + 1`).
    `keeps_hidden`: the last result that is no cache is the hidden state of all rows.
    """

    name: str
    build: Callable[[], nn.Module]
    prefixes: tuple[str, ...]
    arguments: Mapping[str, Argument]
    shapes: Mapping[str, tuple[int | str, ...]]
    dtypes: Mapping[str, str]
    keeps_hidden: bool = False


def block_kinds(config: ModelConfig, page_tokens: int, *, drafts: bool) -> list[BlockKind]:
    """The kinds that this configuration has, each once; with `drafts`, those of its MTP layer."""
    rows = {
        "latent": (config.kv_lora_rank, config.qk_rope_head_dim),
        "index_key": (config.index_head_dim,),
    }
    caches = {
        name: CacheType.of(name, "N", page_tokens, row, NOMINAL_LAYOUT)
        for name, row in rows.items()
    }

    def layer(kind: Kind) -> BlockKind:
        prefixes = tuple(
            f"model.layers.{n}."
            for n in range(config.num_hidden_layers)
            if config.layer_kind(n) == kind
        )
        inputs = (*CARRY, *LAYER_INPUTS)
        return _kind(config, kind, lambda: Block(config, kind), prefixes, inputs, caches)

    def end(name: str, build: Callable[[], nn.Module], *inputs: str) -> BlockKind:
        kind = _kind(config, name, build, ("",), inputs, {})
        return replace(kind, keeps_hidden=drafts and name != "embed")

    kinds = [
        end("embed", lambda: Embed(config), "tokens"),
        layer("dense"),
        layer("moe"),
        end("head", lambda: Head(config, keeps_hidden=drafts), *CARRY, *HEAD_INPUTS),
        end(
            "head_scores",
            lambda: ScoringHead(config, keeps_hidden=drafts),
            *CARRY,
            *HEAD_INPUTS,
            "targets",
            "top_p",
        ),
    ]
    if drafts:
        kinds += _draft_kinds(config, caches)
    return [k for k in kinds if k.prefixes]


def _draft_kinds(config: ModelConfig, caches: Mapping[str, CacheType]) -> list[BlockKind]:
    """The MTP layer reads the state of any row; its head the rows that the layer just wrote."""
    inputs = ("delta", HIDDEN, "hidden_rows", *LAYER_INPUTS)
    prefixes = tuple(f"model.layers.{n}." for n in config.mtp_layers)
    mtp = _kind(config, "mtp", lambda: Mtp(config), prefixes, inputs, caches)
    head = _kind(
        config, "draft_head", lambda: DraftHead(config), ("",), (HIDDEN, *HEAD_INPUTS), {}, "T"
    )
    return [replace(mtp, keeps_hidden=True), head]


def _kind(
    config: ModelConfig,
    name: str,
    build: Callable[[], nn.Module],
    prefixes: tuple[str, ...],
    inputs: tuple[str, ...],
    caches: Mapping[str, CacheType],
    state_rows: str = "S",
) -> BlockKind:
    wide = {"delta": "T", "residual": "T", HIDDEN: state_rows}
    arguments: dict[str, Argument] = {}
    shapes: dict[str, tuple[int | str, ...]] = {}
    dtypes: dict[str, str] = {}
    for value in inputs:
        hidden = value in wide
        dims = (wide[value], config.hidden_size) if hidden else STEP_INPUTS[value].dims
        shapes[value] = dims
        dtypes[value] = "bf16" if hidden else STEP_INPUTS[value].dtype
        role = "carry" if value in CARRY else "state" if value == HIDDEN else "input"
        attrs = {f"lostwax.{role}": value}
        dynamic = {axis: d for axis, d in enumerate(dims) if isinstance(d, str)}
        arguments[value] = Argument(dynamic, attrs)
    for value, cache in caches.items():
        shapes[value] = ("N", cache.page_tokens.data, sum(cache.row))
        dtypes[value] = cache.layout.data
        arguments[value] = Argument({0: "N"}, {}, cache)
    return BlockKind(name, build, prefixes, arguments, shapes, dtypes)
