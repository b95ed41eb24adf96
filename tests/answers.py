"""Runs an engine's core and gathers what each request got. Tests nothing itself, but that nobody
goes on after its end and no page is lost."""

from __future__ import annotations

from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Cancel, Failed, Output, Submit, TokenScore


class Answers:
    """Runs a core and gathers what each request got."""

    def __init__(self, core: EngineCore) -> None:
        self.core = core
        self.tokens: dict[str, list[TokenScore]] = {}
        self.prompt_scores: dict[str, list[TokenScore]] = {}
        self.ends: dict[str, str] = {}

    def submit(self, *submits: Submit) -> None:
        for submit in submits:
            self._take(self.core.handle(submit))

    def cancel(self, name: str) -> None:
        self._take(self.core.handle(Cancel(name)))

    def step(self) -> None:
        self._take(self.core.step())
        self.core.scheduler.check_integrity()

    def finish(self) -> None:
        for _ in range(10_000):
            if not self.core.has_work:
                break
            self.step()
        pages = self.core.scheduler.pages
        assert pages.num_free == pages.num_usable

    def ids(self, name: str) -> list[int]:
        return [score.token for score in self.tokens.get(name, [])]

    def _take(self, events: list[Output | Failed]) -> None:
        for event in events:
            assert event.request not in self.ends, f"{event.request} goes on after its end"
            if isinstance(event, Failed):
                self.ends[event.request] = event.code
                continue
            self.tokens.setdefault(event.request, []).extend(event.tokens)
            self.prompt_scores.setdefault(event.request, []).extend(event.prompt_scores)
            if event.finish is not None:
                self.ends[event.request] = event.finish
