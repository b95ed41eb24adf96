"""One line a request for whoever runs the server. Knows no text of any prompt or answer."""

from __future__ import annotations

from dataclasses import dataclass

from lostwax.server.engine.log_lines import LogLines
from lostwax.server.gateway.request_record import RequestRecord

PROBES = frozenset({"/health", "/ready", "/startup", "/metrics"})
"""What machines ask every second: told of only where it fails."""


@dataclass(frozen=True, slots=True)
class AccessLog:
    """Writes a line when a request has ended: an Observer."""

    lines: LogLines

    def tokens(self, gap_s: float | None, count: int) -> None:
        """Nothing is written before the end."""

    def prompt(self, num_tokens: int, num_cached: int) -> None:
        """Nothing is written before the end."""

    def first_token(self, seconds: float) -> None:
        """Nothing is written before the end."""

    def ended(self, record: RequestRecord) -> None:
        """A request has ended."""
        if record.route in PROBES and record.outcome == "ok":
            return
        fields: dict[str, str | int | float | None] = {
            "request_id": record.request_id,
            "client": record.client,
            "method": record.method,
            "route": record.route,
            "status": record.status,
            "outcome": record.outcome,
        }
        short = {"total": f"{record.total_s * 1e3:.1f}ms"}
        if record.generates:
            ttft_s = record.ttft_s
            fields |= {
                "prompt_tokens": record.num_prompt,
                "cached_tokens": record.num_cached,
                "generated_tokens": record.num_output,
                "ttft_ms": None if ttft_s is None else round(ttft_s * 1e3, 1),
                "finish_reason": record.finish,
            }
            short = {
                "in": str(record.num_prompt),
                "cached": str(record.num_cached),
                "out": str(record.num_output),
                "ttft": "-" if ttft_s is None else f"{ttft_s * 1e3:.1f}ms",
            } | short
        fields["total_ms"] = round(record.total_s * 1e3, 1)
        said = " ".join(f"{name}={value}" for name, value in short.items())
        text = (
            f"{record.client} {record.method} {record.route} {record.status} {record.outcome}"
            f" {said} id={record.request_id}"
        )
        self.lines.event("request", fields, text)
