"""A server for the page at `/` that answers what a test wants to see: calls of tools, texts without
an end, of ten thousand tokens, or that break off. Knows no model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from lostwax.server.gateway.page_routes import FILES, FOLDER, HEADERS

HOSTILE = "<img src=x onerror=alert(1)>"
MANY = 10_000
"""Tokens of a long answer."""


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice], 'usage': None})}\n\n".encode()


def _token(text: str) -> bytes:
    ranked = [{"token": other, "logprob": -0.3, "bytes": None} for other in (text, " a", " b")]
    told = {"token": text, "logprob": -0.3, "bytes": None, "top_logprobs": ranked}
    delta = {"content": text}
    choice = {"index": 0, "delta": delta, "logprobs": {"content": [told]}, "finish_reason": None}
    return f"data: {json.dumps({'choices': [choice], 'usage': None})}\n\n".encode()


class _Stub(BaseHTTPRequestHandler):
    """Answers what no small model does reliably: by the last message."""

    def do_GET(self) -> None:
        if self.path in FILES:
            name, kind = FILES[self.path]
            self._begin(200, kind, HEADERS)
            self.wfile.write((FOLDER / name).read_bytes())
            return
        body = {"status": "ready", "data": [{"id": "stub", "max_model_len": 9}]}
        self._begin(404 if self.path == "/metrics" else 200, "application/json")
        self.wfile.write(json.dumps(body).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["messages"][-1]["content"] == "plain":
            self._begin(502, "text/html")
            self.wfile.write(b"<h1>Bad gateway</h1>")
            return
        self._begin(200, "text/event-stream")
        last = body["messages"][-1]
        if last["content"] == "long":
            for _ in range(1000):
                self.wfile.write(_chunk({"content": "on and "}))
                time.sleep(0.02)
        elif last["content"] == "many":
            for n in range(MANY):
                self.wfile.write(_token(f" word{n}"))
                time.sleep(0.01 if n % 20 == 0 else 0)  # 2,000 a second
        elif last["content"] == "break":
            self.wfile.write(_chunk({"content": "So"}))
            return
        elif last["role"] == "tool":
            self.wfile.write(_chunk({"content": HOSTILE}) + _chunk({}, "stop"))
        else:
            for part in (
                {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}},
                {"function": {"arguments": '{"city":'}},
                {"function": {"arguments": '"Bonn"}'}},
            ):
                self.wfile.write(_chunk({"tool_calls": [{"index": 0, **part}]}))
            self.wfile.write(_chunk({}, "tool_calls"))
        self.wfile.write(b"data: [DONE]\n\n")

    def _begin(self, status: int, kind: str, more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Connection": "close", **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@contextmanager
def stub() -> Generator[str]:
    """Its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Stub) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
