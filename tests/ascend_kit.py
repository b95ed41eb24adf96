"""The conformance kit over Ascend's lowerings and a small model that has a place for each."""

from __future__ import annotations

from functools import cache

from ascend_twin import TWIN_TARGET, TwinDriver
from model_formats import LITTLE
from xdsl.dialects.builtin import ModuleOp

from lostwax.backends.ascend.lowerings import lowerings
from lostwax.backends.formats import Formats
from lostwax.backends.lowering import Lowering
from lostwax.backends.proof.kit import Environment, Outcome, Variant, certify_all
from lostwax.backends.runtime.driver import Driver, no_kernels
from lostwax.frontend.capture import capture
from lostwax.frontend.config import parse_config
from lostwax.ir.contract.kernel import CompiledKernel, KernelSource
from lostwax.ir.contract.model import ModelFacts
from lostwax.ir.contract.target import Target
from lostwax.ir.passes.pipeline import run

PAGE = 16
CONFIG = LITTLE | {"n_routed_experts": 8, "n_group": 2, "topk_group": 1}
"""Ranks and heads that CANN's operators take, four experts a group."""
OWN = tuple(low for low in lowerings(TWIN_TARGET) if low.name.startswith("ascend_"))
WEIGHTS = ("int8", "dequantised")
BODIES = tuple(
    Variant(segment, every) for segment in ("decode", "extend") for every in (False, True)
)


@cache
def module_of(weights: str) -> tuple[ModuleOp, ModelFacts]:
    """Its weights int8 or dequantised."""
    captured = capture(parse_config(CONFIG), PAGE)
    formats = Formats().assign("bf16", weights, TWIN_TARGET)
    return run(captured.module, (formats,), None), captured.facts


def _no_kernel(source: KernelSource) -> CompiledKernel:
    raise AssertionError(f"a lowering asked for a kernel: {source}")


def _environment(target: Target) -> Environment:
    def driver() -> Driver:
        return TwinDriver(target, no_kernels, {})

    return Environment(target, driver, _no_kernel, "interpreted", {})


def certified(
    weights: str,
    chosen: tuple[Lowering, ...] = OWN,
    variants: tuple[Variant, ...] = BODIES,
    target: Target = TWIN_TARGET,
) -> list[Outcome]:
    """What becomes of the chosen lowerings at each of their places. Raises NotConformant."""
    module, facts = module_of(weights)
    given = _environment(target)
    return list(certify_all(module, facts, chosen, given, variants=variants, seeds=(1,)))
