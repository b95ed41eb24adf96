"""`/metrics` tells what became of grammars, how long they took and what follows them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fake_runtime import FakeLimits
from grammar_engine import constrained
from grammar_vocabulary import CODEC, grammars_of, raise_it
from http_server import running
from prometheus_client.parser import text_string_to_metric_families

from lostwax.server.engine.messages import decode_events, encode
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.grammar import grammars as grammars_module
from lostwax.server.grammar.counts import COMPILE_BOUNDS_S, REASONS, GrammarCounts, Reason
from lostwax.server.grammar.grammar import Grammar
from lostwax.server.grammar.grammar_process import (
    ENDED,
    FAILED,
    NO_HOST,
    TOO_MANY,
    TOO_SLOW,
    GrammarProcess,
)
from lostwax.server.grammar.grammars import Grammars, Wanted

AB = Grammar("regex", "ab")
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with constrained(tmp_path_factory.mktemp("tokenizer")) as made:
        app = create_app(InProcessEngine(made.core), CODEC, Settings(metrics=True))
        with running(app) as url, httpx.Client(base_url=url, timeout=60) as client:
            yield client


def _scraped(client: httpx.Client) -> Series:
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples}


def _value(series: Series, name: str, **labels: str) -> float:
    return series[f"lostwax_{name}", tuple(sorted(labels.items()))]


def _ask(client: httpx.Client, regex: str | None) -> int:
    body = {"prompt": [1, 2], "max_tokens": 9, "temperature": 0, "regex": regex}
    return client.post("/v1/completions", json=body).status_code


def _told(client: httpx.Client, name: str, value: float, **labels: str) -> Series:
    """What `/metrics` says once it has heard of the last request: answers may come before that."""
    until = time.monotonic() + 5
    while True:
        seen = _scraped(client)
        if _value(seen, name, **labels) >= value or time.monotonic() > until:
            return seen
        time.sleep(0.02)


def test_requests_grammars_are_counted_by_what_became_of_them(client: httpx.Client) -> None:
    assert _ask(client, None) == 200
    before = _scraped(client)
    assert _value(before, "grammars_compiled_total") == 0
    assert _value(before, "grammar_masked_steps_total") == 0
    statuses = [_ask(client, regex) for regex in ("(a", "[a-z]{4}", "[a-z]{4}", "(a", "[0-9]{2}")]
    assert statuses == [400, 200, 200, 400, 200]
    seen = _told(client, "grammar_processes", 2, state="idle")
    assert _value(seen, "grammars_compiled_total") == 2
    assert _value(seen, "grammars_cached_total") == 1
    refused = {why: _value(seen, "grammars_refused_total", reason=why) for why in REASONS}
    assert refused == dict.fromkeys(REASONS, 0) | {"invalid": 2}
    assert _value(seen, "grammar_compile_seconds_count") == 2
    assert _value(seen, "grammar_compile_seconds_bucket", le="+Inf") == 2
    assert _value(seen, "grammar_compile_seconds_sum") > 0
    assert _value(seen, "grammar_masked_steps_total") >= 4 + 4 + 2
    assert _value(seen, "grammar_mask_seconds_total") > 0
    states = {s: _value(seen, "grammar_processes", state=s) for s in ("compiling", "used", "idle")}
    assert states == {"compiling": 0, "used": 0, "idle": 2}, "no request is left, and no step comes"


def test_every_metric_of_grammars_is_on_its_page(client: httpx.Client) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    _ask(client, "b")
    names = re.findall(r"^# HELP (lostwax_grammar\w+)", client.get("/metrics").text, re.M)
    assert len(names) >= 7
    assert {name for name in names if f"`{name}`" not in page} == set()


@pytest.fixture
def grammars(tmp_path: Path) -> Iterator[Grammars]:
    made = grammars_of(tmp_path, FakeLimits())
    yield made
    made.stop()


def _ready(grammars: Grammars, grammar: Grammar) -> GrammarProcess:
    process = grammars.want(grammar)
    while not process.is_ready:
        assert process.refusal is None
        grammars.look(0.05)
    return process


def test_processes_are_told_by_what_they_do(grammars: Grammars) -> None:
    process = grammars.want(AB)
    assert grammars.stats.processes == {"compiling": 0, "used": 0, "idle": 0}, "none has begun"
    grammars.look()
    assert grammars.stats.processes["compiling"] == 1
    _ready(grammars, AB)
    assert grammars.stats.processes == {"compiling": 0, "used": 1, "idle": 0}
    assert (grammars.stats.compiled, grammars.stats.cached) == (1, 1), "one waited for the other's"
    number = process.open((), None)
    grammars.masks([], 1)
    assert grammars.stats.masked_steps == 0
    grammars.masks([Wanted(process, number, [], [], 0)], 1)
    stats = grammars.stats
    assert stats.masked_steps == 1
    assert stats.mask_seconds > 0
    process.close(number)
    process.users = 0
    assert grammars.stats.processes == {"compiling": 0, "used": 0, "idle": 1}


def test_who_has_left_is_not_refused(grammars: Grammars) -> None:
    grammars.want(AB).users -= 1
    grammars.look()
    assert set(grammars.stats.refused.values()) == {0}


def test_one_of_too_many_is_refused_as_such(
    grammars: Grammars, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammars_module, "MAX_WAITING", 0)
    grammars.want(AB)
    assert grammars.stats.refused == dict.fromkeys(REASONS, 0) | {"too_many": 1}


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ("it is wrong", "invalid"),
        (TOO_SLOW, "too_slow"),
        (TOO_MANY, "too_many"),
        (NO_HOST, "failed"),
        (ENDED, "failed"),
        (FAILED, "failed"),
    ],
)
def test_the_reason_follows_from_what_the_client_is_told(why: str, reason: Reason) -> None:
    process = GrammarProcess(AB, raise_it)
    process.end(why)
    assert process.reason == reason


def test_a_time_is_counted_in_the_least_bound_that_holds_it() -> None:
    counts = GrammarCounts()
    for seconds in (0.001, COMPILE_BOUNDS_S[0], 0.03, 99.0):
        counts.note_compiled(seconds)
    stats = counts.stats({})
    assert (stats.compile_counts[0], stats.compile_counts[3], stats.compile_counts[-1]) == (2, 1, 1)
    assert sum(stats.compile_counts) == stats.compiled == 4
    assert stats.compile_seconds == pytest.approx(99.036)


def test_what_steps_waited_for_is_added_up() -> None:
    counts = GrammarCounts()
    for seconds in (0.5, 0.25):
        counts.note_masks(seconds)
    for reason in ("invalid", "invalid", "failed"):
        counts.note_refused(reason)
    stats = counts.stats({"idle": 3})
    assert (stats.masked_steps, stats.mask_seconds) == (2, 0.75)
    assert stats.refused == dict.fromkeys(REASONS, 0) | {"invalid": 2, "failed": 1}
    assert stats.processes == {"idle": 3}


def test_the_engine_process_sends_them(tmp_path: Path) -> None:
    with constrained(tmp_path) as made:
        stats = made.core.stats
        assert stats.grammars is not None
        assert decode_events(encode([stats])) == [stats]
