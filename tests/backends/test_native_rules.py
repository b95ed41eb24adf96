"""The rules of native kernels are the sources', and a launch that breaks one is refused by name."""

from __future__ import annotations

import re

from lostwax.backends.cpu.contract.rules import RULES
from lostwax.backends.cpu.library import KERNELS

_SYMBOL = re.compile(r"^(?:KERNEL_OF\(|void KERNEL\()(\w+)", re.MULTILINE)


def test_every_kernel_of_the_sources_has_a_rule_and_no_other() -> None:
    texts = (path.read_text() for path in KERNELS.glob("*.cpp"))
    assert {name for text in texts for name in _SYMBOL.findall(text)} == set(RULES)
