"""Lowerings onto the shared Triton kernels; their predicates ask the target's facts."""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings.add import ADD
from lostwax.backends.gpu_kernels.lowerings.attend import ATTENDS, ATTENDS_ALL
from lostwax.backends.gpu_kernels.lowerings.attention_inputs import ATTENTION_INPUTS
from lostwax.backends.gpu_kernels.lowerings.cache import APPEND
from lostwax.backends.gpu_kernels.lowerings.cached_projections import CACHED_PROJECTIONS
from lostwax.backends.gpu_kernels.lowerings.experts import EXPERTS
from lostwax.backends.gpu_kernels.lowerings.fp8_joined import FP8_GATE_UP, FP8_PROJECTIONS
from lostwax.backends.gpu_kernels.lowerings.fp8_linear import FP8_LINEAR
from lostwax.backends.gpu_kernels.lowerings.fp8_mlp import FP8_MLP, FP8_MLP_QUANTISED
from lostwax.backends.gpu_kernels.lowerings.grouped_experts import (
    FP8_EXPERTS,
    FP8_MOE,
    FP8_MOE_QUANTISED,
)
from lostwax.backends.gpu_kernels.lowerings.hadamard import HADAMARD, ROPE_HADAMARD_QUANTISE
from lostwax.backends.gpu_kernels.lowerings.index_logits import INDEX_LOGITS
from lostwax.backends.gpu_kernels.lowerings.joined_queries import JOINED_QUERIES
from lostwax.backends.gpu_kernels.lowerings.linear import LINEAR, SILU_MUL
from lostwax.backends.gpu_kernels.lowerings.norm_quantise import (
    ADD_RMS_NORM_AND_QUANTISE,
    ADD_RMS_NORM_QUANTISE,
    RMS_NORM_QUANTISE,
)
from lostwax.backends.gpu_kernels.lowerings.norms import (
    ADD_RMS_NORM,
    LAST_RMS_NORM,
    LAYER_NORM,
    RMS_NORM,
)
from lostwax.backends.gpu_kernels.lowerings.quantise import QUANTISE, SILU_MUL_QUANTISE
from lostwax.backends.gpu_kernels.lowerings.rope import ROPE
from lostwax.backends.gpu_kernels.lowerings.route import ROUTE, ROUTE_ROWS
from lostwax.backends.gpu_kernels.lowerings.rows import EMBED, GATHER_ROWS
from lostwax.backends.gpu_kernels.lowerings.sample import LOGPROB, MASK, NUCLEUS, PICK
from lostwax.backends.gpu_kernels.lowerings.sample_tail import SAMPLE_TAIL
from lostwax.backends.gpu_kernels.lowerings.scaled_cache import (
    APPEND_INDEX_KEY,
    APPEND_LATENT,
    APPEND_SCALED,
)
from lostwax.backends.gpu_kernels.lowerings.score import SCORE
from lostwax.backends.lowering import Lowering

FP8_FORMATS: tuple[Lowering, ...] = (
    QUANTISE,
    SILU_MUL_QUANTISE,
    RMS_NORM_QUANTISE,
    ADD_RMS_NORM_QUANTISE,
    ADD_RMS_NORM_AND_QUANTISE,
    HADAMARD,
    ROPE_HADAMARD_QUANTISE,
    APPEND_SCALED,
    APPEND_LATENT,
    APPEND_INDEX_KEY,
)
"""What only models with fp8 activations, index keys or scaled caches have a place for, but for
products."""

GPU: tuple[Lowering, ...] = (
    *FP8_FORMATS,
    ADD_RMS_NORM,
    LAST_RMS_NORM,
    RMS_NORM,
    LAYER_NORM,
    ROPE,
    EMBED,
    GATHER_ROWS,
    ADD,
    LINEAR,
    FP8_LINEAR,
    FP8_GATE_UP,
    FP8_PROJECTIONS,
    *CACHED_PROJECTIONS,
    *JOINED_QUERIES,
    *ATTENTION_INPUTS,
    SILU_MUL,
    ROUTE,
    ROUTE_ROWS,
    EXPERTS,
    FP8_EXPERTS,
    FP8_MOE,
    FP8_MOE_QUANTISED,
    FP8_MLP,
    FP8_MLP_QUANTISED,
    APPEND,
    INDEX_LOGITS,
    *ATTENDS,
    *ATTENDS_ALL,
    MASK,
    NUCLEUS,
    PICK,
    LOGPROB,
    SAMPLE_TAIL,
    SCORE,
)
