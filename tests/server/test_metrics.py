"""`/metrics` tells Prometheus what requests and engine did, and each number is the true one."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_runtime import FakeLimits, FakeRuntime
from http_server import running
from prometheus_client.parser import text_string_to_metric_families

from lostwax.ir.contract.program import SEGMENTS
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Stats, Submit
from lostwax.server.engine.options import EngineOptions
from lostwax.server.engine.stats import INTERVAL_S, StatsClock
from lostwax.server.gateway.app import create_app
from lostwax.server.gateway.draining import Draining
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.request_record import RequestRecord
from lostwax.server.gateway.settings import Settings
from lostwax.server.gateway.supervised import SupervisedEngine
from lostwax.server.gateway.tokenizer import IdCodec

ENGINE = Path(__file__).parents[1] / "fake_engine.py"
BODY = {"temperature": 0, "ignore_eos": True}
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@contextmanager
def served(
    settings: Settings | None = None, runtime: FakeRuntime | None = None
) -> Generator[httpx.Client]:
    engine = InProcessEngine(EngineCore(runtime or FakeRuntime()))
    app = create_app(engine, IdCodec(), settings or Settings(metrics=True))
    with running(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client


def scraped(client: httpx.Client) -> Series:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = list(text_string_to_metric_families(answer.text))
    assert all(family.name.startswith("lostwax_") for family in families)
    samples = [sample for family in families for sample in family.samples]
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples}


def value(series: Series, name: str, **labels: str) -> float:
    return series[f"lostwax_{name}", tuple(sorted(labels.items()))]


def test_without_the_setting_there_is_no_such_path() -> None:
    with served(Settings()) as client:
        assert client.get("/metrics").status_code == 404


def test_requests_are_counted_by_route_and_outcome() -> None:
    with served() as client:
        path = "/v1/completions"
        ended = client.post(path, json=BODY | {"prompt": [3, 1], "max_tokens": 4})
        assert ended.json()["choices"][0]["finish_reason"] == "length"
        assert client.post(path, json={"prompt": [3, 1], "max_tokens": -1}).status_code == 400
        assert client.get("/v1/models").status_code == 200
        assert client.get("/v1/models/other").status_code == 404
        for unknown in ("/a", "/b"):
            assert client.get(unknown).status_code == 404
        seen = scraped(client)
        assert value(seen, "requests_total", route=path, outcome="length") == 1
        assert value(seen, "requests_total", route=path, outcome="refused") == 1
        assert value(seen, "requests_total", route="/v1/models", outcome="ok") == 1
        model = "/v1/models/{wanted:path}"
        assert value(seen, "requests_total", route=model, outcome="refused") == 1
        assert value(seen, "requests_total", route="other", outcome="refused") == 2


def test_a_prompt_counts_once_however_many_choices_it_has() -> None:
    with served() as client:
        body = BODY | {"prompt": [3, 1, 4, 1, 5, 9, 2, 6, 5], "max_tokens": 6, "n": 4}
        for num_sent in (1, 2):
            assert client.post("/v1/completions", json=body).status_code == 200
            seen = scraped(client)
            assert value(seen, "prompt_tokens_total") == 9 * num_sent
            assert value(seen, "cached_tokens_total") == 8 * (num_sent - 1)
            assert value(seen, "generation_tokens_total") == 24 * num_sent


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_and_times_are_those_of_the_answers(*, stream: bool) -> None:
    with served(Settings(metrics=True, token_histograms=True)) as client:
        body = BODY | {
            "prompt": [[3, 1, 4, 1, 5, 9, 2], [2, 7, 1, 8, 2]],
            "max_tokens": 6,
            "stream": stream,
        }
        assert client.post("/v1/completions", json=body).status_code == 200
        seen = scraped(client)
        assert value(seen, "prompt_tokens_total") == 12
        assert value(seen, "generation_tokens_total") == 12
        assert value(seen, "cached_tokens_total") == 0
        assert value(seen, "time_to_first_token_seconds_count") == 1
        assert value(seen, "inter_token_latency_seconds_count") == 10  # five behind each first
        assert value(seen, "request_time_per_output_token_seconds_count") == 2
        first, whole = (
            value(seen, f"{name}_seconds_sum")
            for name in ("time_to_first_token", "e2e_request_latency")
        )
        assert 0 < first < whole
        assert value(seen, "request_prompt_tokens_sum") == 12
        assert value(seen, "request_generation_tokens_sum") == 12
        client.post("/v1/completions", json=body)
        assert value(scraped(client), "cached_tokens_total") == 8  # a page of each prompt


def test_the_time_of_a_token_is_each_choices_own() -> None:
    """Two that take turns, the second half as fast, and one of a single token."""
    times = iter([0.0, *(0.1 * i for i in range(1, 8))])
    record = RequestRecord("POST", "/", "id", "127.0.0.1", clock=lambda: next(times))
    for choice, number in ((0, 1), (1, 1), (0, 2), (2, 1), (0, 1), (1, 1)):
        record.note_tokens(choice, number)
    assert record.per_token_s == pytest.approx([0.4 / 3, 0.4])


def test_the_end_of_a_server_is_told_of() -> None:
    draining = Draining()
    engine = InProcessEngine(EngineCore(FakeRuntime()))
    app = create_app(engine, IdCodec(), Settings(metrics=True), draining=draining)
    with running(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        draining.begin(10)
        assert client.get("/v1/models").status_code == 503
        seen = scraped(client)
    assert value(seen, "requests_total", route="/v1/models", outcome="unavailable") == 1


def test_only_requests_that_generate_have_a_latency() -> None:
    with served() as client:
        assert client.get("/v1/models").status_code == 200
        assert value(scraped(client), "e2e_request_latency_seconds_count") == 0
        client.post("/v1/completions", json=BODY | {"prompt": [1], "max_tokens": 2})
        assert value(scraped(client), "e2e_request_latency_seconds_count") == 1


def test_lengths_are_no_histogram_unless_asked_for() -> None:
    with served() as client:
        assert not any("request_prompt_tokens" in name for name, _ in scraped(client))


def test_the_engine_tells_of_steps_pages_and_prefixes() -> None:
    with served(runtime=FakeRuntime(FakeLimits(max_drafts=2))) as client:
        body = BODY | {"prompt": [3, 1, 4, 1, 5, 9, 2, 6, 5], "max_tokens": 12}
        for _ in range(2):
            assert client.post("/v1/completions", json=body).status_code == 200
        seen = scraped(client)
    assert value(seen, "engine_up") == 1
    assert value(seen, "num_requests_running") == 0
    waiting = [value(seen, "num_requests_waiting", reason=why) for why in ("slots", "room")]
    assert waiting == [0, 0]
    pages = {s: value(seen, "cache_pages", state=s) for s in ("used", "idle", "blank")}
    assert pages["used"] == 0
    assert sum(pages.values()) == FakeLimits().num_pages - 1
    assert pages["idle"] >= 4
    assert value(seen, "prefix_cache_hit_tokens_total") == 8
    steps = {s: value(seen, "engine_steps_total", segment=s) for s in ("extend", "decode", "pick")}
    assert steps["extend"] == 2
    assert steps["pick"] == steps["extend"] + steps["decode"]
    assert value(seen, "engine_steps_total", segment="score") == 0
    assert 0 < value(seen, "engine_steps_total", segment="draft") <= steps["pick"]
    assert value(seen, "engine_rows_total", entry="extend") == 9 + 1
    assert value(seen, "engine_step_seconds_total", entry="decode") > 0
    drafted, accepted = (
        value(seen, f"{name}_tokens_total") for name in ("draft", "accepted_draft")
    )
    assert 0 < accepted < drafted


def test_a_head_is_counted_only_where_a_step_had_one() -> None:
    core = EngineCore(FakeRuntime(FakeLimits(max_tokens=16)))
    core.handle(Submit(request="r", prompt=[1] * 20, max_tokens=1))
    while core.has_work:
        core.step()
    assert (core.stats.segments["extend"], core.stats.segments["pick"]) == (2, 1)
    assert core.stats.rows == {"extend": 20, "decode": 0}


def test_rows_of_answers_in_prefill_steps_are_those_of_decoding() -> None:
    clock = count()
    options = EngineOptions(max_stall=3.0, prefix_cache=False)
    core = EngineCore(FakeRuntime(), options, clock=lambda: float(next(clock)))
    core.handle(Submit(request="stream", prompt=[1], max_tokens=40, ignore_eos=True))
    for _ in range(4):
        core.step()
    core.handle(Submit(request="prompt", prompt=[2] * 50, max_tokens=1, ignore_eos=True))
    while core.has_work:
        core.step()
    assert core.stats.segments["decode"] < 39, "some steps were mixed"
    assert core.stats.rows == {"extend": 1 + 50, "decode": 39}


def test_metrics_tell_the_bounds_and_how_full_they_are() -> None:
    settings = Settings(metrics=True, max_admitted_reqs=7, max_admitted_tokens=900)
    with served(settings, FakeRuntime(step_s=0.02)) as client:
        seen = scraped(client)
        assert value(seen, "queue_bound", of="answers") == 7
        assert value(seen, "queue_bound", of="tokens") == 900
        assert value(seen, "queue_filled", of="answers") == 0
        body = {"prompt": [1] * 9, "max_tokens": 40, "n": 2, "stream": True, "ignore_eos": True}
        with client.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.iter_lines()  # which ends the answer when it is dropped
            next(lines)
            seen = scraped(client)
            assert value(seen, "queue_filled", of="answers") == 2
            assert value(seen, "queue_filled", of="tokens") == 9 + 2 * 40


def test_who_waits_is_told_by_what_is_lacking() -> None:
    core = EngineCore(FakeRuntime(FakeLimits(num_pages=6)), EngineOptions(max_running=2))
    for index in range(3):
        core.handle(Submit(request=f"r{index}", prompt=[1, index], max_tokens=9))
    core.step()
    assert (core.stats.running, core.stats.waiting_for_slots, core.stats.waiting_for_room) == (
        (2, 1, 0)
    )
    core = EngineCore(FakeRuntime(FakeLimits(num_pages=6)))
    for index in range(3):
        core.handle(Submit(request=f"r{index}", prompt=[1] * 9, max_tokens=2))
    core.step()
    assert (core.stats.running, core.stats.waiting_for_slots, core.stats.waiting_for_room) == (
        (1, 0, 2)
    )


def test_a_report_is_due_every_half_second_and_when_work_ends() -> None:
    now = 0.0
    clock = StatsClock(lambda: now)
    due: list[bool] = []
    for seconds, is_busy in [(0.0, True), (0.1, True), (0.6, True), (0.7, False), (0.8, False)]:
        now = seconds
        due.append(clock.is_due(is_busy=is_busy))
    assert due == [True, False, True, True, False]
    now = 0.7 + INTERVAL_S
    assert clock.is_due(is_busy=True)


def test_the_engine_process_reports_only_if_it_is_asked_and_a_restart_is_counted() -> None:
    program = [sys.executable, str(ENGINE)]
    engine = SupervisedEngine(
        lambda link: [*program, link.address, str(link.parent), "0", "--reports"],
        announce=lambda line: None,
    )
    app = create_app(engine, IdCodec(), Settings(metrics=True))
    with running(app) as url, httpx.Client(base_url=url, timeout=20) as client:
        seen = _until(client, _has_stats)
        assert value(seen, "engine_restarts_total") == 0
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        seen = _until(client, lambda seen: not value(seen, "engine_up"))
        assert ("lostwax_num_requests_running", ()) not in seen, "of an engine that is gone"
        seen = _until(client, _has_stats)
        assert value(seen, "engine_restarts_total") == 1


def _has_stats(seen: Series) -> bool:
    return ("lostwax_num_requests_running", ()) in seen


def _until(client: httpx.Client, holds: Callable[[Series], bool]) -> Series:
    """The first scrape of which that holds."""
    for _ in range(1000):
        if holds(seen := scraped(client)):
            return seen
        time.sleep(0.01)
    raise AssertionError("it never came to that")


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"status": 200}, "ok"),
        ({"status": 200, "generates": True, "finish": "stop"}, "stop"),
        ({"status": 200, "has_left": True}, "cancelled"),
        ({"status": 499}, "cancelled"),
        ({"status": 404}, "refused"),
        ({"status": 429}, "busy"),
        ({"status": 500}, "failed"),
        ({"status": 503}, "unavailable"),
        ({"status": 0}, "failed"),
    ],
)
def test_the_outcome_follows_from_status_and_finish(fields: dict[str, Any], outcome: str) -> None:
    record = RequestRecord("GET", "/", "id", "127.0.0.1")
    for name, each in fields.items():
        setattr(record, name, each)
    assert record.outcome == outcome


def test_of_several_choices_the_one_that_was_cut_short_counts() -> None:
    record = RequestRecord("POST", "/", "id", "127.0.0.1", generates=True, status=200)
    for reason in ("stop", "length", "stop"):
        record.note_finish(reason)
    assert record.outcome == "length"


def test_stats_name_all_segments() -> None:
    stats = EngineCore(FakeRuntime()).stats
    assert isinstance(stats, Stats)
    assert set(stats.segments) == set(SEGMENTS)


def test_every_metric_is_on_its_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    with served(Settings(metrics=True, token_histograms=True)) as client:
        body = BODY | {"prompt": [3, 1], "max_tokens": 4}
        client.post("/v1/completions", json=body)
        text = client.get("/metrics").text
    names = set(re.findall(r"^# HELP (\w+)", text, re.M))
    named = {name for name in names if not name.endswith("_created")}
    assert {name for name in named if f"`{name}`" not in page} == set()
