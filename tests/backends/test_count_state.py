"""A row of the state COUNTS says how often each id came, and which the prompt has."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lostwax.backends.cpu.driver import CpuDriver
from lostwax.backends.cpu.target import CPU
from lostwax.backends.runtime.count_state import CountState
from lostwax.backends.runtime.driver import no_kernels
from lostwax.ir.contract.counts import IN_PROMPT, OUTPUT
from lostwax.ir.contract.step_state import Enter

IDS = 8


def entered(*, prompt: tuple[int, ...], outputs: tuple[int, ...]) -> torch.Tensor:
    """Row 1, which held something else before."""
    buffer = torch.full((3 * IDS * 4,), 9, dtype=torch.uint8)
    state = CountState(buffer, IDS, CpuDriver(CPU, no_kernels, {}))
    state.enter([
        Enter(
            seq=1, pages=(1,), length=0, limit=9, num_prompt=len(prompt), repetition=1.5,
            prompt=prompt, outputs=outputs,
        )
    ])  # fmt: skip
    return buffer.view(torch.int32).view(3, IDS)[1]


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
def test_a_row_counts_outputs_and_marks_the_prompt(
    prompt: tuple[int, ...], outputs: tuple[int, ...]
) -> None:
    wanted = np.zeros(IDS, np.int32)
    for token in outputs:
        wanted[token] += OUTPUT
    for token in set(prompt):
        wanted[token] += IN_PROMPT
    assert entered(prompt=prompt, outputs=outputs).tolist() == wanted.tolist()


class StagedDriver(CpuDriver):
    """Remembers how many bytes were made ready to be copied, one number a copy."""

    def __init__(self) -> None:
        super().__init__(CPU, no_kernels, {})
        self.staged: list[int] = []

    def staging(self, num_bytes: int) -> torch.Tensor:
        self.staged.append(num_bytes)
        return super().staging(num_bytes)


@pytest.mark.parametrize("length", [2, 159_000])
def test_a_prompt_costs_one_copy_of_a_row_however_long(length: int) -> None:
    ids = 50_000
    driver = StagedDriver()
    state = CountState(torch.zeros(2 * ids * 4, dtype=torch.uint8), ids, driver)
    prompt = tuple(7 * place % ids for place in range(length))
    state.enter([
        Enter(
            seq=1, pages=(1,), length=0, limit=length + 1, num_prompt=length, repetition=1.5,
            prompt=prompt, outputs=prompt,
        )
    ])  # fmt: skip
    assert driver.staged == [4 * ids]
