"""The block kinds of the model: their modules, inputs and results. Captures nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from lostwax.frontend.config import Kind, ModelConfig
from lostwax.frontend.importer import Argument
from lostwax.frontend.model.block import Block
from lostwax.frontend.model.head import Embed, FinalNorm, PickHead, SampleHead, ScoreHead
from lostwax.frontend.model.mtp import Mtp
from lostwax.ir.contract.biases import BIASES
from lostwax.ir.contract.counts import COUNTS
from lostwax.ir.contract.masks import MASKS, mask_words
from lostwax.ir.contract.step import HIDDEN, STEP_INPUTS
from lostwax.ir.types import CacheType

CARRY = ("delta", "residual")
LAYER_INPUTS = ("positions", "slots", "q_starts", "page_table")
PICK_INPUTS = ("logit_rows", "temperature", "seeds", "counters")
SAMPLE_STATES = (HIDDEN, COUNTS, BIASES, MASKS)
PENALTY_INPUTS = ("count_rows", "recent", "repetition", "frequency", "presence")
SAMPLE_INPUTS = (
    *PICK_INPUTS, "top_k", "top_p", "min_p", *PENALTY_INPUTS, "bias_rows", "mask_rows",
)  # fmt: skip
SCORE_INPUTS = (*SAMPLE_INPUTS, "targets")
NOMINAL_LAYOUT = "bf16"


@dataclass(frozen=True, slots=True)
class BlockKind:
    """One function of the module. `prefixes` are those of the layers that call it.

    `shapes` gives each input's dimensions: numbers, or names of symbols (`T`, `B + 1`).
    `gives_hidden`: its result is the hidden state, which outlives the body.
    """

    name: str
    build: Callable[[], nn.Module]
    prefixes: tuple[str, ...]
    arguments: Mapping[str, Argument]
    shapes: Mapping[str, tuple[int | str, ...]]
    dtypes: Mapping[str, str]
    gives_hidden: bool = False


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
        return _kind(config, name, build, ("",), inputs, {})

    kinds = [
        end("embed", lambda: Embed(config), "tokens"),
        layer("dense"),
        layer("moe"),
        replace(end("norm", lambda: FinalNorm(config), *CARRY), gives_hidden=True),
        end("pick_head", lambda: PickHead(config), HIDDEN, *PICK_INPUTS),
        end("sample_head", lambda: SampleHead(config), *SAMPLE_STATES, *SAMPLE_INPUTS),
        end("score_head", lambda: ScoreHead(config), *SAMPLE_STATES, *SCORE_INPUTS),
    ]
    if drafts:
        inputs = ("delta", HIDDEN, "hidden_rows", *LAYER_INPUTS)
        prefixes = tuple(f"model.layers.{n}." for n in config.mtp_layers)
        mtp = _kind(config, "mtp", lambda: Mtp(config), prefixes, inputs, caches)
        kinds.append(replace(mtp, gives_hidden=True))
    return [k for k in kinds if k.prefixes]


def _kind(
    config: ModelConfig,
    name: str,
    build: Callable[[], nn.Module],
    prefixes: tuple[str, ...],
    inputs: tuple[str, ...],
    caches: Mapping[str, CacheType],
) -> BlockKind:
    wide = config.hidden_size
    known: dict[str, tuple[str, tuple[int | str, ...], str]] = {
        **dict.fromkeys(CARRY, ("carry", ("T", wide), "bf16")),
        HIDDEN: ("state", ("S", wide), "bf16"),
        COUNTS: ("state", ("C", config.vocab_size), "i32"),
        BIASES: ("state", ("Q", config.vocab_size), "f32"),
        MASKS: ("state", ("M", mask_words(config.vocab_size)), "i32"),
    }
    arguments: dict[str, Argument] = {}
    shapes: dict[str, tuple[int | str, ...]] = {}
    dtypes: dict[str, str] = {}
    for value in inputs:
        if value in known:
            role, dims, dtypes[value] = known[value]
        else:
            spec = STEP_INPUTS[value]
            role, dims, dtypes[value] = "input", spec.dims, spec.dtype
        shapes[value] = dims
        attrs = {f"lostwax.{role}": value}
        dynamic = {axis: d for axis, d in enumerate(dims) if isinstance(d, str)}
        arguments[value] = Argument(dynamic, attrs)
    for value, cache in caches.items():
        shapes[value] = ("N", cache.page_tokens.data, sum(cache.row))
        dtypes[value] = cache.layout.data
        arguments[value] = Argument({0: "N"}, {}, cache)
    return BlockKind(name, build, prefixes, arguments, shapes, dtypes)
