"""An engine over a late runtime with what follows grammars, as tests drive it."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from fake_runtime import FakeLimits
from grammar_vocabulary import Oracle, grammars_of
from late_runtime import LateRuntime, Owner

from lostwax.server.engine.failure_log import FailureLog
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Failed, Output, Submit
from lostwax.server.engine.options import EngineOptions
from lostwax.server.grammar.grammar import Grammar

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "array", "items": {"enum": [1, 2]}}},
        "required": ["a"],
        "additionalProperties": False,
    }
)
JSON = Grammar("json_schema", SCHEMA)
WIDE = Grammar("regex", "[a-z0-9 ]{1,9}")
"""Most drafts may come."""
CHOICE = Grammar("choice", '["abc", "ab", "cd 12"]')
GRAMMARS = (JSON, WIDE, CHOICE)
ORACLE = Oracle()


class ConstrainedEngine:
    """An engine over a late runtime, what follows its grammars, and what it said."""

    def __init__(self, folder: Path, depth: int, limits: FakeLimits, hang_s: float) -> None:
        self.runtime = LateRuntime(limits, self._holder, is_shared=self._is_shared)
        self.said: list[str] = []
        log = FailureLog(self.said.append)
        self.grammars = grammars_of(folder, limits, hang_s, log)
        options = EngineOptions()
        self.core = EngineCore(self.runtime, options, log, depth, grammars=self.grammars)
        self.events: list[Output | Failed] = []

    def _holder(self, seq: int) -> Owner:
        running = self.core.scheduler.running
        return next(Owner(req.name, id(req)) for req in running if req.seq == seq)

    def _is_shared(self, page: int) -> bool:
        return self.core.scheduler.pages.is_shared(page)

    def add(self, name: str, prompt: list[int], max_tokens: int = 20, **asked: object) -> None:
        submit = Submit(request=name, prompt=prompt, max_tokens=max_tokens)
        self.events += self.core.handle(msgspec.structs.replace(submit, **asked))

    def step(self) -> None:
        self.events += self.core.step()
        self.core.scheduler.check_integrity()

    def run(self) -> None:
        until = time.monotonic() + 60
        while self.core.has_work:
            assert time.monotonic() < until, "it does not end"
            self.step()
        assert not self.runtime.wrong

    def settle(self) -> None:
        """Step as an engine does that has no work, until all that it is still to hear has come."""
        until = time.monotonic() + 10
        while self.core.is_settling:
            assert time.monotonic() < until, "it never comes"
            self.step()

    def ids(self, name: str) -> list[int]:
        mine = [e for e in self.events if isinstance(e, Output) and e.request == name]
        return [score.token for e in mine for score in e.tokens]

    def failed(self) -> dict[str, Failed]:
        return {e.request: e for e in self.events if isinstance(e, Failed)}


@contextmanager
def constrained(
    folder: Path,
    depth: int = 1,
    drafts: int = 0,
    *,
    num_pages: int = 65,
    max_reqs: int = 4,
    hang_s: float = 5.0,
) -> Generator[ConstrainedEngine]:
    limits = FakeLimits(max_drafts=drafts, num_pages=num_pages, max_reqs=max_reqs)
    made = ConstrainedEngine(folder, depth, limits, hang_s)
    try:
        yield made
    finally:
        made.grammars.stop()
