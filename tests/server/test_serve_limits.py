"""What `serve` is asked of sizes under SGLang's names is kept by the engine, or refused."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import lostwax, one_sentence
from fake_runtime import FakeLimits, FakeRuntime, generate
from http_server import running

from lostwax.backends.plan.memory_plan import plan_memory
from lostwax.cli.serve_limits import host_pages, pages_within
from lostwax.server.engine.capacity import capacity
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Failed, Output, Submit
from lostwax.server.engine.options import EngineOptions
from lostwax.server.gateway.app import create_app
from lostwax.server.gateway.settings import Settings
from lostwax.server.gateway.supervised import SupervisedEngine
from lostwax.server.gateway.tokenizer import IdCodec

HANGING = 42
HANGS = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from fake_runtime import FakeRuntime
from lostwax.server.engine.options import PLAIN
from lostwax.server.engine.process import run_engine
class Hangs(FakeRuntime):
    def run(self, batch):
        if {HANGING} in batch.tokens:
            time.sleep(600)
        return super().run(batch)
run_engine(lambda begin: Hangs(), sys.argv[1], PLAIN)  # it meets each token as it warms up else
"""
"""An engine that hangs at a token."""


def test_options_reach_the_engine_process_as_they_are() -> None:
    import argparse

    parser = argparse.ArgumentParser()
    EngineOptions.add_to(parser)
    for options in (
        EngineOptions(),
        EngineOptions(1, False, 3, 2.5, 100, 32, adapt_drafts=True, reports=True),
    ):
        assert EngineOptions.of(parser.parse_args(options.arguments())) == options


def test_a_request_longer_than_the_given_context_is_refused() -> None:
    core = EngineCore(FakeRuntime(), EngineOptions(max_context=20))
    assert core.info.max_context == 20
    (refused,) = core.handle(Submit(request="long", prompt=[1] * 15, max_tokens=6))
    assert isinstance(refused, Failed)
    assert refused.code == "context_length_exceeded"
    assert core.handle(Submit(request="fits", prompt=[1] * 15, max_tokens=5)) == []
    assert EngineCore(FakeRuntime(), EngineOptions(max_context=10_000)).info.max_context == 64


def test_a_prefill_step_has_at_most_the_given_rows_and_answers_are_the_same() -> None:
    seen: list[int] = []

    class Counts(FakeRuntime):
        """Notes the rows of its extend steps."""

        def run(self, batch: Any) -> Any:
            if batch.entry == "extend":
                seen.append(len(batch.tokens))
            return super().run(batch)

    core = EngineCore(Counts(), EngineOptions(max_extend_rows=5, max_stall=3.0))
    prompt = list(range(1, 14))
    core.handle(Submit(request="r", prompt=prompt, max_tokens=3, ignore_eos=True))
    tokens: list[int] = []
    while core.has_work:
        for event in core.step():
            assert isinstance(event, Output)
            tokens += [score.token for score in event.tokens]
    assert seen == [5, 5, 3]
    assert tokens == generate(prompt, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            (163840, 64, 65536, 32),
            "the cache holds 163840 tokens; requests that run at once: 32 of 4k, 5 of 32k, 2 of"
            " the full context (65536)",
        ),
        (
            (128, 4, 64, 4),
            "the cache holds 128 tokens; requests that run at once: 2 of the full context (64)",
        ),
        (
            (100, 64, 65, 4),  # whole pages: two each
            "the cache holds 100 tokens; requests that run at once: 0 of the full context (65)",
        ),
    ],
)
def test_what_the_cache_holds_is_said_in_requests(
    arguments: tuple[int, int, int, int], said: str
) -> None:
    assert capacity(*arguments) == said


def test_the_engine_says_so_of_itself() -> None:
    core = EngineCore(
        FakeRuntime(FakeLimits(num_pages=33)), EngineOptions(max_context=16, max_running=3)
    )
    assert core.capacity.endswith("tokens; requests that run at once: 3 of the full context (16)")
    assert core.capacity.startswith("the cache holds 128 ")


def test_an_engine_whose_step_never_ends_is_started_again() -> None:
    told: list[str] = []
    command = [sys.executable, "-c", HANGS]
    engine = SupervisedEngine(
        lambda link: [*command, link.address], announce=told.append, watchdog_s=0.5
    )
    body = {"temperature": 0, "ignore_eos": True, "max_tokens": 3, "return_token_ids": True}
    with (
        running(create_app(engine, IdCodec(), Settings())) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        _wait_ready(client)
        assert client.post("/v1/completions", json=body | {"prompt": [5]}).status_code == 200
        begun = time.monotonic()
        while time.monotonic() - begun < 1.2:  # idle for longer than the watchdog waits
            assert client.get("/ready").status_code == 200
        begun = time.monotonic()
        lost = client.post("/v1/completions", json=body | {"prompt": [HANGING]})
        assert lost.status_code == 503
        assert 0.5 < time.monotonic() - begun < 10
        _wait_ready(client)
        answer = client.post("/v1/completions", json=body | {"prompt": [3, 1]})
        assert answer.json()["choices"][0]["token_ids"] == generate([3, 1], 3)
    (said,) = [line for line in told if "watchdog" in line]
    assert "longer than --watchdog-timeout 0.5; starting it again" in said


def _wait_ready(client: httpx.Client) -> None:
    for _ in range(1000):
        if client.get("/ready").status_code == 200:
            return
        time.sleep(0.02)
    raise AssertionError("the engine did not become ready")


def test_the_artifact_says_what_may_be_asked(
    small_artifact: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = plan_memory(small_artifact.artifact, 2)
    where = (small_artifact.artifact, "--checkpoint", small_artifact.checkpoint, "--port", 0)
    for line, said in {
        ("--context-length", 10**6): "was compiled with --max-context",
        ("--chunked-prefill-size", 10**6): "was compiled with --max-tokens",
        ("--page-size", limits.page_tokens + 1): f"read pages of {limits.page_tokens} tokens",
        ("--mem-fraction-static", 1e-9): "leaves no cache beside the",
        ("--hicache-size", 1e-9): "takes in no page: one has",
        ("--hicache-size", 1e6): "give a smaller --hicache-size",
        ("--hicache-size", 1, "--disable-radix-cache"): "that --disable-radix-cache never finds",
        ("--enable-hierarchical-cache", "--disable-radix-cache"): "--enable-hierarchical-cache",
    }.items():
        status, _, err = lostwax(capsys, "serve", *where, *line)
        assert status == 1
        assert said in one_sentence(err)


def test_a_fraction_of_memory_is_pages_that_fill_it(
    small_artifact: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = {"SC_PHYS_PAGES": 2**18, "SC_PAGE_SIZE": 4096}  # 1 GiB
    monkeypatch.setattr("os.sysconf", memory.__getitem__)
    pages = pages_within(small_artifact.artifact, 0.5)
    there = 2**29
    assert plan_memory(small_artifact.artifact, pages).total <= there
    assert plan_memory(small_artifact.artifact, pages + 1).total > there


def test_pages_of_host_memory_fill_what_is_given_or_two_caches(
    small_artifact: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = {"SC_PHYS_PAGES": 2**18, "SC_PAGE_SIZE": 4096}  # 1 GiB
    monkeypatch.setattr("os.sysconf", memory.__getitem__)
    plan = plan_memory(small_artifact.artifact)
    pages = host_pages(small_artifact.artifact, 0.5, None)
    assert pages * plan.page_bytes <= 0.5e9 < (pages + 1) * plan.page_bytes
    assert host_pages(small_artifact.artifact, 0, None) == 2 * plan.num_pages
    assert host_pages(small_artifact.artifact, 0, 7) == 14
