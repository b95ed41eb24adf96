"""What an operator may choose of the gateway. Imports nothing of the web's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lostwax.server.engine.log_lines import LogFormat
from lostwax.server.gateway.chat_settings import OF_CHECKPOINT, ChatSettings

WATCHDOG_S = 300.0
"""A step that has run for so long never ends: the engine is killed and started again."""
MAX_QUEUED_REQS = 512
"""Answers that wait beside those that may run, where nobody says else."""
MAX_QUEUED_TOKENS = 2_000_000
"""Tokens that those which run or wait bring together, where nobody says else."""


@dataclass(frozen=True, slots=True)
class Build:
    """What is served: the artifact's schema and digest, and the target it was compiled for; the
    folder that it lies in, and that of its proofs (None: beside it)."""

    schema: int
    digest: str
    target: str
    folder: Path | None = None
    certificates: Path | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """`model` replaces the checkpoint's name. So many answers run or wait at once as
    `max_admitted_reqs` says; together they bring `max_admitted_tokens` tokens at most, as
    `Prepared.num_tokens` counts them.

    `host` is what the server listens on, `allowed_hosts` are further names by which it is called,
    beside loopback's, `allowed_origins` those of web pages that may use it. `metrics` adds
    `/metrics`, and `token_histograms` to these the lengths of prompts and answers. `build` is
    what `/version` tells beside lostwax's own. `key_digests` (`api_keys.py`) are those of the API
    keys that are taken; without any, none is asked for. `log_requests` writes a line a request, in
    the format of all lines. A request that has not ended `request_timeout_s` seconds after the
    engine took it fails; None lets it take as long as it takes.
    `otlp_traces_endpoint` is the URL of a collector that is sent a span a
    request, None where nobody wants them. `chats` says where they differ from what the checkpoint's
    encoding is.
    """

    model: str | None = None
    max_admitted_reqs: int = MAX_QUEUED_REQS
    max_admitted_tokens: int = MAX_QUEUED_TOKENS
    host: str = "127.0.0.1"
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    metrics: bool = False
    token_histograms: bool = False
    build: Build | None = None
    key_digests: tuple[bytes, ...] = ()
    log_requests: bool = False
    log_format: LogFormat = "text"
    request_timeout_s: float | None = None
    otlp_traces_endpoint: str | None = None
    chats: ChatSettings = OF_CHECKPOINT
