"""Grammars of an attacker against a server of the trained model: each is refused, or costs as much
as any other answer, and streams beside them hardly notice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hostile_grammars import Body, hostile_grammars
from stream_gaps import BEFORE_S, require_alike, served, streams

pytestmark = pytest.mark.hostile
AT_ONCE = 4
"""Clients that send hostile grammars."""
ANSWERED_S = 30.0
"""Within this each has its answer, however many stand before it."""
TOKENS = 30


@pytest.fixture(scope="module")
def url(trained_artifact: Path) -> Iterator[str]:
    with served(trained_artifact) as server:
        yield server.url


def _ask(client: httpx.Client, kind: str, body: Body) -> tuple[str, str]:
    """How a request with a hostile grammar ended."""
    began = time.monotonic()
    given: dict[str, Any] = {"prompt": "x", "max_tokens": TOKENS, "temperature": 1, "min_p": 0.01}
    answer = client.post("/v1/completions", json=given | body)
    assert time.monotonic() - began < ANSWERED_S, kind
    told = answer.json()
    if answer.status_code == 200:
        return kind, told["choices"][0]["finish_reason"]
    error = told["error"]
    assert (answer.status_code, error["code"]) in (
        (400, "invalid_grammar"),
        (500, "grammar_failed"),  # it passed what was tried, and grew costly later
    ), (kind, error)
    assert error["param"] == next(iter(body)), (kind, error)
    assert len(answer.content) < 2000
    return kind, error["code"]


def _check(url: str, each: int) -> None:
    grammars = hostile_grammars(each)
    with httpx.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(AT_ONCE) as pool:
        _ask(client, "a start", {"regex": "a"})  # what grammars need is loaded
        with streams(url) as before:
            time.sleep(BEFORE_S)
        with streams(url) as beside:
            answers = [pool.submit(_ask, client, *grammar) for grammar in grammars]
            ends = [answer.result() for answer in answers]
    print({f"{kind}: {end}": ends.count((kind, end)) for kind, end in sorted(set(ends))})
    require_alike(before, beside)
    assert len(ends) == 10 * each


def test_a_hundred_of_ten_kinds_are_refused_or_bounded(url: str) -> None:
    _check(url, 10)
