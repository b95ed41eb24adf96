"""A row of the state COUNTS says how often each id came, and which the prompt has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.target import CPU
from lostwax.backends.runtime.count_state import CountState
from lostwax.backends.runtime.driver import no_kernels
from lostwax.backends.runtime.host_driver import HostDriver
from lostwax.ir.contract.counts import IN_PROMPT, OUTPUT
from lostwax.ir.contract.step_state import Enter

IDS = 8


def entered(
    kind: type[CpuDriver | HostDriver], *, prompt: tuple[int, ...], outputs: tuple[int, ...]
) -> list[int]:
    """Row 1, which held something else before."""
    driver = kind(CPU, no_kernels, {})
    buffer = driver.allocate(3 * IDS * 4)
    buffer[:] = 9
    state = CountState(buffer, IDS, driver)
    state.enter([
        Enter(
            seq=1, pages=(1,), length=0, limit=9, num_prompt=len(prompt), repetition=1.5,
            prompt=prompt, outputs=outputs,
        )
    ])  # fmt: skip
    return driver.memory.read(buffer).view(np.int32).reshape(3, IDS)[1].tolist()


@pytest.mark.parametrize(
    ("prompt", "outputs"),
    [
        ((5, 5, 7, 3), (7,)),
        ((5, 5, 7, 3), ()),
        ((), (2, 2, 6)),
        ((1, 1, 1), (1, 1, 4)),
    ],
    ids=["an output of the prompt", "no output yet", "no prompt", "one id twice in either"],
)
@pytest.mark.parametrize("kind", [CpuDriver, HostDriver])
def test_a_row_counts_outputs_and_marks_the_prompt(
    kind: type[CpuDriver | HostDriver], prompt: tuple[int, ...], outputs: tuple[int, ...]
) -> None:
    wanted = np.zeros(IDS, np.int32)
    for token in outputs:
        wanted[token] += OUTPUT
    for token in set(prompt):
        wanted[token] += IN_PROMPT
    assert entered(kind, prompt=prompt, outputs=outputs) == wanted.tolist()


@pytest.mark.parametrize("length", [2, 159_000])
def test_a_prompt_costs_one_copy_of_a_row_however_long(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = 50_000
    driver = HostDriver(CPU, no_kernels, {})
    staged: list[int] = []
    staging = driver.staging

    def noted(num_bytes: int) -> torch.Tensor:
        staged.append(num_bytes)
        return staging(num_bytes)

    monkeypatch.setattr(driver, "staging", noted)
    state = CountState(torch.zeros(2 * ids * 4, dtype=torch.uint8), ids, driver)
    prompt = tuple(7 * place % ids for place in range(length))
    state.enter([
        Enter(
            seq=1, pages=(1,), length=0, limit=length + 1, num_prompt=length, repetition=1.5,
            prompt=prompt, outputs=prompt,
        )
    ])  # fmt: skip
    assert staged == [4 * ids]
