"""Choices of a prompt that wait for the first of them, which runs it for all. Knows no pages.

They stand in no queue meanwhile: nobody looks at them, and they hold nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lostwax.server.engine.request import Req


class Choices:
    """Held choices, by the first of theirs."""

    def __init__(self) -> None:
        self._behind: dict[Req, dict[str, Req]] = {}
        self._first_of: dict[str, Req] = {}

    def __len__(self) -> int:
        return len(self._first_of)

    def __iter__(self) -> Iterator[Req]:
        """All that are held."""
        return (req for behind in self._behind.values() for req in behind.values())

    def firsts(self) -> Iterator[Req]:
        """Those that others wait for."""
        return iter(self._behind)

    def get(self, name: str) -> Req | None:
        """The held choice of that name."""
        first = self._first_of.get(name)
        return None if first is None else self._behind[first][name]

    def behind(self, first: Req) -> list[Req]:
        """Those that wait for it, in order."""
        return list(self._behind.get(first, {}).values())

    def hold(self, first: Req, others: Sequence[Req]) -> None:
        """Let the others wait for the first."""
        self._behind[first] = {req.name: req for req in others}
        self._first_of.update(dict.fromkeys(self._behind[first], first))

    def remove(self, req: Req) -> None:
        """Take out one that is held."""
        first = self._first_of.pop(req.name)
        behind = self._behind[first]
        del behind[req.name]
        if not behind:
            del self._behind[first]

    def release(self, first: Req) -> list[Req]:
        """Take out all that wait for a first, in order: its prompt has run."""
        behind = self._behind.pop(first, {})
        for name in behind:
            del self._first_of[name]
        return list(behind.values())

    def succeed(self, first: Req) -> Req | None:
        """Take out the next, which the others wait for from now on: the first has ended before its
        prompt had run. None where nobody waits for it."""
        others = self.release(first)
        if not others:
            return None
        if len(others) > 1:
            self.hold(others[0], others[1:])
        return others[0]
