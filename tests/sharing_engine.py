"""An engine whose requests share pages, over the fake runtime. Tests nothing itself."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import msgspec
from fake_runtime import VOCAB, FakeLimits, FakeRuntime, generate

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Failed, Submit
from lostwax.server.engine.options import PLAIN, EngineOptions

PAGE = FakeLimits().page_tokens


class SharingEngine:
    """An engine over the fake runtime, and what its requests found and answered."""

    def __init__(self, options: EngineOptions = PLAIN, **limits: int) -> None:
        self.runtime = FakeRuntime(replace(FakeLimits(), **limits))
        self.core = EngineCore(self.runtime, options)
        self.tokens: dict[str, list[int]] = {}
        self.found: dict[str, int] = {}
        self.ends: dict[str, str] = {}
        self.scored: dict[str, list[int]] = {}

    def add(self, name: str, prompt: list[int], max_tokens: int = 5, **given: Any) -> None:
        base = Submit(request=name, prompt=prompt, max_tokens=max_tokens, ignore_eos=True)
        assert self.core.handle(msgspec.structs.replace(base, **given)) == []
        self.tokens[name] = []
        self.scored[name] = []

    def step(self) -> None:
        for event in self.core.step():
            if isinstance(event, Failed):
                self.ends[event.request] = event.code
                continue
            self.tokens[event.request] += [score.token for score in event.tokens]
            self.scored[event.request] += [score.token for score in event.prompt_scores]
            self.found[event.request] = event.cached_tokens
            self.ends[event.request] = event.finish or ""
        self.core.scheduler.check_integrity()

    def finish(self) -> None:
        while self.core.has_work:
            self.step()

    def ask(self, prompt: list[int], max_tokens: int = 5, **given: Any) -> int:
        """Run one request alone; how many of its tokens were found. Its answer must be right."""
        name = f"r{len(self.tokens)}"
        self.add(name, prompt, max_tokens, **given)
        self.finish()
        want = generate(prompt, max_tokens, given.get("temperature", 0.0), given.get("seed", 0))
        assert self.tokens[name] == want[: len(self.tokens[name])]
        assert self.ends[name] in ("stop", "length")
        return self.found[name]

    @contextmanager
    def rows(self) -> Generator[list[int]]:
        """Gathers the prompt rows that extend steps run meanwhile, one number a step."""
        first, counts = len(self.runtime.batches), list[int]()
        yield counts
        steps = [b for b in self.runtime.batches[first:] if b.entry == "extend"]
        counts += [len(batch.tokens) for batch in steps]


def text(count: int, first: int = 0) -> list[int]:
    return [(7 * i + first) % VOCAB for i in range(count)]
