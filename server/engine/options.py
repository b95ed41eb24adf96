"""What an operator may say of the engine, and how its process is told. Knows no runtime."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from lostwax.server.engine.extend_budget import MAX_STALL


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """As EngineCore takes them; None stands for its default or the artifact's most."""

    drafts: int | None = None
    prefix_cache: bool = True
    max_running: int | None = None
    max_stall: float = MAX_STALL

    def arguments(self) -> list[str]:
        """The same on the command line of the engine's process."""
        given = {"--drafts": self.drafts, "--max-running-requests": self.max_running}
        said = [part for k, v in given.items() if v is not None for part in (k, str(v))]
        said += ["--max-stall", repr(self.max_stall)]
        return said if self.prefix_cache else [*said, "--disable-radix-cache"]

    @staticmethod
    def add_to(parser: argparse.ArgumentParser) -> None:
        """Let a parser take these arguments."""
        parser.add_argument("--drafts", type=int)
        parser.add_argument("--max-running-requests", type=int)
        parser.add_argument("--max-stall", type=float, default=MAX_STALL)
        parser.add_argument("--disable-radix-cache", action="store_true")

    @staticmethod
    def of(parsed: argparse.Namespace) -> EngineOptions:
        """What such a parser has read."""
        return EngineOptions(
            drafts=parsed.drafts,
            prefix_cache=not parsed.disable_radix_cache,
            max_running=parsed.max_running_requests,
            max_stall=parsed.max_stall,
        )
