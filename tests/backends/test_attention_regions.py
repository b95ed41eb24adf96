"""Attention's fused regions stand once in every layer, in each format by the one that is for it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from model_formats import FORMATS
from xdsl.dialects import func

from lostwax.backends.gpu_kernels.lowerings.attend import ATTENDS
from lostwax.backends.gpu_kernels.lowerings.attention_inputs import ATTENTION_INPUTS
from lostwax.backends.gpu_kernels.lowerings.cached_projections import CACHED_PROJECTIONS
from lostwax.backends.gpu_kernels.lowerings.joined_queries import JOINED_QUERIES
from lostwax.backends.lowering import Lowering
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.passes.assign_formats import AssignFormatsPass
from lostwax.ir.passes.pipeline import run
from lostwax.ir.region import find_matches


def layers(name: str) -> list[func.FuncOp]:
    """The functions of a model's layers in some formats."""
    config, formats = FORMATS[name]
    module = run(capture(parse_config(config), 16).module, (AssignFormatsPass(**formats),), None)
    found = [f for f in module.ops if isinstance(f, func.FuncOp)]
    return [f for f in found if f.sym_name.data in ("dense", "moe")]


def places(lowerings: Iterable[Lowering], layer: func.FuncOp) -> list[str]:
    """The lowerings that have a place in the layer, as often as they have one."""
    body = layer.body.block
    return [low.name for low in lowerings for _ in find_matches(low.pattern, body)]


# What is scaled fp8 in a format: the query, latents, index keys.
SCALED = {
    "f32": "", "bf16": "", "fp8": "", "caches": "_latent_key", "raw_caches": "_key",
    "all_fp8": "_query_latent_key", "fnuz": "_query",
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_each_region_stands_once_in_a_layer(name: str) -> None:
    scaled, found = SCALED[name], layers(name)
    assert {layer.sym_name.data for layer in found} == {"dense", "moe"}
    for layer in found:
        cached = places(CACHED_PROJECTIONS, layer)
        for kind in ("smxx_fp8_cached_projections", "smxx_fp8_cached_projections_heads"):
            assert cached.count(kind + scaled) == 1
        queries = places(JOINED_QUERIES, layer)
        assert queries.count("smxx_fp8_queries" + "_quantised" * ("_key" in scaled)) == 1
        # of scaled activations nothing is left to make of a norm
        whole = [] if "_query" in scaled else [f"smxx_fp8_attention_queries_heads{scaled}"]
        assert places(ATTENTION_INPUTS, layer) == whole
        end = "_quantised" if "_query" in scaled else "_projected"
        attention = "smxx_mla_attend_splitkv"
        assert places(ATTENDS, layer) == [attention, attention + end]
