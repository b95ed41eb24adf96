"""How gateway and engine write what happens: as text, or as JSON, an object a line.

Everything goes to standard error through `say.py`. A line that cannot be written, since the disk is
full or who read it is gone, is lost: no request ends for it, and no engine. The next that can be
written says how many were. Knows no request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeVar

from lostwax.backends.runtime.say import say, say_json, say_lines

LogFormat = Literal["text", "json"]
T = TypeVar("T")
Fields = Mapping[str, str | int | float | None]


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class LogLines:
    """Writes lines in one format. In JSON each has `time` (UTC), `level` and `source`."""

    format: LogFormat = "text"
    source: Literal["gateway", "engine"] = "gateway"
    clock: Callable[[], datetime] = _now
    _num_lost: int = field(default=0, init=False)

    def say(self, text: object) -> None:
        """Something happened."""
        if self.format == "text":
            self._write(say, text)
        else:
            self._write(say_json, self._head("info") | {"message": str(text).strip()})

    def failure(self, text: str) -> None:
        """Something failed: a sentence, and on further lines the trace of an exception."""
        if self.format == "text":
            self._write(say_lines, text)
            return
        sentence, *trace = text.splitlines()
        self._write(say_json, self._head("error") | {"message": sentence, "trace": trace})

    def event(self, name: str, fields: Fields, text: str) -> None:
        """Something that has fields; `text` says them where lines are text."""
        if self.format == "text":
            self._write(say, f"{self._time()} {text}")
        else:
            self._write(say_json, self._head("info") | {"event": name} | dict(fields))

    def _write(self, write: Callable[[T], None], line: T) -> None:
        try:
            write(line)
        except (OSError, ValueError):  # a ValueError is that of a closed stream
            self._num_lost += 1
            return
        if self._num_lost:
            num_lost, self._num_lost = self._num_lost, 0
            self.say(f"{num_lost} lines before the last could not be written")

    def _head(self, level: str) -> dict[str, object]:
        return {"time": self._time(), "level": level, "source": self.source}

    def _time(self) -> str:
        return self.clock().isoformat(timespec="milliseconds").replace("+00:00", "Z")
