"""Any traffic over few pages and a tier in host memory, where pages often give way.

Tests nothing itself.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
from engine_machine import REQUESTS, EngineMachine, cache_of
from fake_runtime import FakeLimits
from hypothesis import strategies as st
from hypothesis.stateful import rule
from late_runtime import LateRuntime

from lostwax.server.engine.messages import Submit


class HostMachine(EngineMachine):
    """Where all idle pages give way now and then, as if a request had come that needs them."""

    num_host_pages = 3
    num_restored = 0
    """Pages that came back in all runs; a test's subclass begins with its own."""

    def make_runtime(self, limits: FakeLimits) -> LateRuntime:
        """Over few pages more than the longest request needs."""
        return super().make_runtime(replace(limits, num_pages=8))

    @rule(count=st.sampled_from([0, 4, 40]), number=st.integers(0, 3), request=REQUESTS)
    def ask_again_what_gave_way(self, count: int, number: int, request: Submit) -> None:
        """After some steps, of which 40 end most of what there is."""
        self.step(count)
        cache_of(self.core).make_room(self.core.scheduler.pages.num_free)
        asked = list(self.asked.values())
        earlier = asked[-1 - number % len(asked)].submit.prompt
        self.add(msgspec.structs.replace(request, prompt=[*earlier, *request.prompt][:12]))

    def teardown(self) -> None:
        super().teardown()
        if self.asked:
            type(self).num_restored += self.core.stats.host_pages_restored
