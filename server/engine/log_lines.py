"""How gateway and engine write what happens: as text, or as JSON, an object a line.

Everything goes to standard error through `say.py`. Knows no request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from lostwax.backends.runtime.say import say, say_json, say_lines

LogFormat = Literal["text", "json"]
Fields = Mapping[str, str | int | float | None]


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class LogLines:
    """Writes lines in one format. In JSON each has `time` (UTC), `level` and `source`."""

    format: LogFormat = "text"
    source: Literal["gateway", "engine"] = "gateway"
    clock: Callable[[], datetime] = _now

    def say(self, text: object) -> None:
        """Something happened."""
        if self.format == "text":
            say(text)
        else:
            say_json(self._head("info") | {"message": str(text).strip()})

    def failure(self, text: str) -> None:
        """Something failed: a sentence, and on further lines the trace of an exception."""
        if self.format == "text":
            say_lines(text)
            return
        sentence, *trace = text.splitlines()
        say_json(self._head("error") | {"message": sentence, "trace": trace})

    def event(self, name: str, fields: Fields, text: str) -> None:
        """Something that has fields; `text` says them where lines are text."""
        if self.format == "text":
            say(f"{self._time()} {text}")
        else:
            say_json(self._head("info") | {"event": name} | dict(fields))

    def _head(self, level: str) -> dict[str, object]:
        return {"time": self._time(), "level": level, "source": self.source}

    def _time(self) -> str:
        return self.clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")
