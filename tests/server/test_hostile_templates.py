"""A chat template that does an attacker's work where a message asks for it, against a server of the
trained model: each such request is refused in bounded time, and streams beside it hardly notice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from body_processes import body_processes
from hostile_templates import KINDS
from stream_gaps import BEFORE_S, Served, require_alike, served, streams

from lostwax.server.formats.chat_template import TemplateFault
from lostwax.server.formats.template_apart import RENDER_S, translated

pytestmark = pytest.mark.hostile
AT_ONCE = 4
"""Clients that send them; one is rendered at a time."""
ANSWERED_S = AT_ONCE * (RENDER_S + 2)
TIMES = 3
"""How often each is asked for: above a hundred requests."""


def _runs(source: str) -> bool:
    """Whether it is a template at all: what is none does nothing beside streams."""
    try:
        translated("t", source)
    except TemplateFault:
        return False
    return True


@pytest.fixture(scope="module")
def hostile() -> list[tuple[str, str]]:
    found = [(kind, each) for kind, all_ in KINDS.items() for each in all_ if _runs(each)]
    assert len({kind for kind, _ in found}) >= 10
    return found


@pytest.fixture(scope="module")
def server(
    hostile: list[tuple[str, str]], trained_artifact: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("template") / "hostile.jinja"
    asked = "".join(
        f"{{% if messages[0].content == 'hostile {number}' %}}{source}{{% endif %}}"
        for number, (_, source) in enumerate(hostile)
    )
    path.write_text(asked + "{{ messages[0].content }}")
    with served(trained_artifact, "--chat-template", str(path)) as server:
        yield server


def _ask(client: httpx.Client, content: str) -> None:
    """A chat is refused, for what the template does."""
    began = time.monotonic()
    body: dict[str, Any] = {"messages": [{"role": "user", "content": content}], "max_tokens": 30}
    answer = client.post("/v1/chat/completions", json=body | {"ignore_eos": True})
    assert time.monotonic() - began < ANSWERED_S, content
    assert answer.status_code == 400, (content, answer.text)
    assert answer.json()["error"]["code"] == "template_failed", (content, answer.text)
    assert len(answer.content) < 2000


def test_a_hundred_of_ten_kinds_hold_no_stream_up(
    server: Served, hostile: list[tuple[str, str]]
) -> None:
    url = server.url
    requests = [f"hostile {number}" for number in range(len(hostile))] * TIMES
    assert len(requests) >= 100
    with httpx.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        _ask(client, requests[0])  # a start: what templates need is loaded
        readers = body_processes(server.pid)
        assert len(readers) == 1
        with streams(url) as before:
            time.sleep(BEFORE_S)
        with streams(url) as beside:
            for answer in [pool.submit(_ask, client, each) for each in requests]:
                answer.result()
        require_alike(before, beside)
        assert body_processes(server.pid) == readers, "the process that reads chats was replaced"
