"""Grammars of an attacker against a server of the trained model: each is refused, or costs as much
as any other answer, and streams beside them hardly notice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hostile_grammars import Body, hostile_grammars
from stream_gaps import gaps, require_alike, served

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
    given |= {} if body else {"ignore_eos": True}
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
    with httpx.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(AT_ONCE + 1) as pool:
        _ask(client, "a start", {"regex": "a"})  # what grammars need is loaded
        over = threading.Event()
        plain = pool.submit(gaps, url, over)
        for answer in [pool.submit(_ask, client, "none", {}) for _ in range(20 * each)]:
            assert answer.result() == ("none", "length")  # as many neighbours, without a grammar
        over.set()
        before = plain.result()
        over.clear()
        beside = pool.submit(gaps, url, over)
        answers = [pool.submit(_ask, client, *grammar) for grammar in grammars]
        ends = [answer.result() for answer in answers]
        over.set()
        meanwhile = beside.result()
    print({f"{kind}: {end}": ends.count((kind, end)) for kind, end in sorted(set(ends))})
    require_alike(before, meanwhile)
    assert len(ends) == 10 * each


def test_a_hundred_of_ten_kinds_are_refused_or_bounded(url: str) -> None:
    _check(url, 10)
