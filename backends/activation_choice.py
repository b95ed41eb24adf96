"""Which activations meet FP8 weights where nobody chooses. Knows no target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ActivationChoice:
    """`model`: as they are, which on matrix units of fp8 takes two products; `fp8`: rounded to 8
    bits, as the official code does. `reason` says why, for `compile` and `explain`."""

    form: Literal["model", "fp8"]
    reason: str
