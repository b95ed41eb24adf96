"""A server over a scripted runtime: what tests of each interface share."""

from __future__ import annotations

import json
from typing import Any, Self

import httpx
import openai
from scripted_runtime import CODEC, ScriptedRuntime


class ScriptedServer:
    """A server at `url` whose answers a test writes."""

    def __init__(self, runtime: ScriptedRuntime, url: str) -> None:
        self.runtime = runtime
        self.url = url
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)

    def says(self, text: str) -> Self:
        """What the model answers from now on; marks in it are tokens of their own."""
        self.runtime.script = CODEC.encode_rendered(text)
        return self

    def send(
        self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """The answer to a body of many lines, as some clients write JSON."""
        content = json.dumps(body, indent=0)
        headers = {"Content-Type": "application/json", **(headers or {})}
        return httpx.post(f"{self.url}{path}", content=content, headers=headers, timeout=20)
