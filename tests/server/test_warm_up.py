"""What the engine does to warm up is in none of its numbers."""

from __future__ import annotations

from fake_runtime import FakeLimits, FakeRuntime
from msgspec.structs import replace

from lostwax.server.engine.commit import Drafting
from lostwax.server.engine.loop import EngineCore


def test_a_warm_engine_has_counted_nothing() -> None:
    runtime = FakeRuntime(FakeLimits(max_drafts=2))
    core = EngineCore(runtime)
    before, num_pages = core.stats, core.scheduler.pages.num_usable
    core.warm_up()
    assert {batch.entry for batch in runtime.batches} == {"extend", "decode", "draft"}
    kept = core.stats.pages_idle
    assert core.stats == replace(before, pages_idle=kept, pages_blank=num_pages - kept)
    assert core.drafting == Drafting()
