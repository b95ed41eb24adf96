"""What may be said of an engine, and how its process is told. Knows no runtime.

By default nothing that the engine does follows from how long steps take: runs repeat exactly.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from lostwax.server.engine.extend_budget import MAX_STALL


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine runs. None stands for the artifact's most, which nothing here exceeds."""

    max_drafts: int | None = None
    """Tokens drafted at most for a request between two decode steps."""
    prefix_cache: bool = True
    """Whether pages are kept, and prompts begin behind what they hold."""
    max_running: int | None = None
    """Requests that run at once."""
    max_stall: float | None = None
    """What a prefill step may cost answers, in decode steps' time, as ExtendBudget says; None: each
    is as large as any."""
    max_context: int | None = None
    """Tokens of a request."""
    max_extend_rows: int | None = None
    """Rows of a prefill step."""
    adapt_drafts: bool = False
    """Whether fewer tokens are drafted where that gives more a second, as DraftLength finds."""
    overlap: bool = True
    """Whether a step is submitted while the one before runs, where the device keeps the state."""
    reports: bool = False
    """Whether the gateway is told what the engine does (Stats)."""

    def arguments(self) -> list[str]:
        """The same on the command line of the engine's process."""
        given = {"--drafts": self.max_drafts, "--max-running-requests": self.max_running}
        given |= {"--context-length": self.max_context}
        given |= {"--chunked-prefill-size": self.max_extend_rows}
        said = [part for k, v in given.items() if v is not None for part in (k, str(v))]
        said += [] if self.max_stall is None else ["--max-stall", repr(self.max_stall)]
        said += ["--adapt-drafts"] if self.adapt_drafts else []
        said += ["--reports"] if self.reports else []
        said += [] if self.overlap else ["--disable-overlap-schedule"]
        return said if self.prefix_cache else [*said, "--disable-radix-cache"]

    @staticmethod
    def add_to(parser: argparse.ArgumentParser) -> None:
        """Let a parser take these arguments."""
        parser.add_argument("--drafts", type=int)
        parser.add_argument("--max-running-requests", type=int)
        parser.add_argument("--context-length", type=int)
        parser.add_argument("--chunked-prefill-size", type=int)
        parser.add_argument("--max-stall", type=float)
        parser.add_argument("--adapt-drafts", action="store_true")
        parser.add_argument("--disable-radix-cache", action="store_true")
        parser.add_argument("--disable-overlap-schedule", action="store_true")
        parser.add_argument("--reports", action="store_true")

    @staticmethod
    def of(parsed: argparse.Namespace) -> EngineOptions:
        """What such a parser has read."""
        return EngineOptions(
            max_drafts=parsed.drafts,
            prefix_cache=not parsed.disable_radix_cache,
            overlap=not parsed.disable_overlap_schedule,
            max_running=parsed.max_running_requests,
            max_stall=parsed.max_stall,
            max_context=parsed.context_length,
            max_extend_rows=parsed.chunked_prefill_size,
            adapt_drafts=parsed.adapt_drafts,
            reports=parsed.reports,
        )


PLAIN = EngineOptions()
SERVED = EngineOptions(max_stall=MAX_STALL, adapt_drafts=True)
"""As `lostwax serve` runs an engine where nobody says else."""
