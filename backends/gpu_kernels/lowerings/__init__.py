"""Lowerings onto the shared Triton kernels; their predicates ask the target's facts."""

from __future__ import annotations

from lostwax.backends.gpu_kernels.lowerings.attend import ATTEND, ATTEND_ALL
from lostwax.backends.gpu_kernels.lowerings.cache import APPEND
from lostwax.backends.gpu_kernels.lowerings.experts import EXPERTS, ROUTE
from lostwax.backends.gpu_kernels.lowerings.fp8_joined import FP8_GATE_UP, FP8_PROJECTIONS
from lostwax.backends.gpu_kernels.lowerings.fp8_linear import FP8_LINEAR
from lostwax.backends.gpu_kernels.lowerings.grouped_experts import FP8_EXPERTS
from lostwax.backends.gpu_kernels.lowerings.linear import LINEAR, SILU_MUL
from lostwax.backends.gpu_kernels.lowerings.norms import (
    ADD_RMS_NORM,
    LAST_RMS_NORM,
    LAYER_NORM,
    RMS_NORM,
)
from lostwax.backends.gpu_kernels.lowerings.rope import ROPE
from lostwax.backends.gpu_kernels.lowerings.sample import LOGPROB, NUCLEUS, PICK
from lostwax.backends.gpu_kernels.lowerings.whole_row import SAMPLE_ROW
from lostwax.backends.lowering import Lowering

GPU: tuple[Lowering, ...] = (
    ADD_RMS_NORM,
    LAST_RMS_NORM,
    RMS_NORM,
    LAYER_NORM,
    ROPE,
    LINEAR,
    FP8_LINEAR,
    FP8_GATE_UP,
    FP8_PROJECTIONS,
    SILU_MUL,
    ROUTE,
    EXPERTS,
    FP8_EXPERTS,
    APPEND,
    ATTEND,
    ATTEND_ALL,
    NUCLEUS,
    PICK,
    LOGPROB,
    SAMPLE_ROW,
)
