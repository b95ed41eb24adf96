"""The default budget prefers what is small, and keeps nothing from being compiled."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest
from native_kernels import torch_alone
from small_fixtures import CompileSmall

from lostwax.backends import compile as compiling
from lostwax.backends.compile import CompileOptions, budget_of
from lostwax.backends.cpu.target import CPU
from lostwax.backends.plan.cover import Budget
from lostwax.backends.plan.memory_plan import plan_memory
from lostwax.ir.contract.target import Target


@pytest.fixture(scope="module", autouse=True)
def of_torch() -> Generator[None]:
    """Native kernels take no memory of their own."""
    with torch_alone():
        yield


def test_it_follows_the_memory_of_the_target_and_only_what_is_said_is_strict() -> None:
    twice = msgspec.structs.replace(CPU, memory_bytes=2 * CPU.memory_bytes)
    default = budget_of(CompileOptions(), CPU)
    assert not default.strict
    assert budget_of(CompileOptions(), twice).num_bytes == 2 * default.num_bytes
    assert budget_of(CompileOptions(budget_bytes=5), CPU) == Budget(5)


@pytest.mark.parametrize("batch_invariant", [False, True])
def test_a_model_whose_ops_take_more_is_compiled_all_the_same(
    compile_small: CompileSmall,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_invariant: bool,
) -> None:
    """As a large model's do at long prefills: quantise, silu_mul and add cannot be cut smaller."""

    def little(options: CompileOptions, target: Target) -> Budget:
        return Budget(9000, strict=False)

    monkeypatch.setattr(compiling, "budget_of", little)
    compile_small(tmp_path / "a", batch_invariant=batch_invariant)
    assert plan_memory(tmp_path / "a").host_calls > 9000
