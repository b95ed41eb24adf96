"""Each option of an engine reaches what it decides, in the core and over the process's border."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from command_line import lostwax
from engine_effects import CHANGED, EFFECTS
from fake_runtime import FakeRuntime
from small_fixtures import Compiled

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.server.engine import process
from lostwax.server.engine.options import PLAIN, SERVED, EngineOptions
from lostwax.server.gateway.settings import MAX_QUEUED_REQS, Settings
from lostwax.server.grammar.grammars import Grammars

EVERY = EngineOptions(**CHANGED, reports=True, overlap=False)


def test_every_option_is_told_on_the_command_line_and_read_as_it_was() -> None:
    parser = argparse.ArgumentParser()
    EngineOptions.add_to(parser)
    one_by_one = [replace(PLAIN, **{name: value}) for name, value in CHANGED.items()]
    for options in (PLAIN, SERVED, EVERY, *one_by_one):
        assert EngineOptions.of(parser.parse_args(options.arguments())) == options


def test_each_option_is_changed_here() -> None:
    names = {field.name for field in fields(EngineOptions)}
    assert names == {*CHANGED, "overlap", "reports"}, "of the process: here, and test_metrics.py"
    assert all(getattr(EVERY, name) != getattr(PLAIN, name) for name in names)


@pytest.mark.parametrize("name", CHANGED)
def test_the_core_does_what_each_option_says(name: str) -> None:
    effect = EFFECTS[name]
    assert effect(replace(PLAIN, **{name: CHANGED[name]})) != effect(PLAIN)


class _Seen(Exception):
    """Stops a process where its core would begin."""


@pytest.mark.parametrize(
    ("overlaps", "options", "wanted"),
    [(False, PLAIN, 0), (True, PLAIN, 1), (False, EVERY, 0), (True, EVERY, 0)],
)
def test_the_process_hands_its_options_to_the_core(
    overlaps: bool,
    options: EngineOptions,
    wanted: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    seen: dict[str, Any] = {}

    def core(
        runtime: FakeRuntime, options: EngineOptions, _: object, depth: int, *, grammars: object
    ) -> None:
        seen.update(runtime=runtime, options=options, depth=depth, grammars=grammars)
        raise _Seen

    class Runtime(FakeRuntime):
        """Overlaps, or not."""

    runtime = Runtime()
    runtime.overlaps = overlaps
    monkeypatch.setattr(process, "EngineCore", core)
    with pytest.raises(_Seen):
        process.run_engine(lambda _: runtime, f"ipc://{tmp_path}/nobody", options)
    asked = {"runtime": runtime, "options": options, "depth": wanted}
    assert seen == {**asked, "grammars": None}
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(_Seen):
        process.run_engine(
            lambda _: runtime, f"ipc://{tmp_path}/nobody", options, None, [tmp_path / "a", tmp_path]
        )
    assert isinstance(seen["grammars"], Grammars)
    seen["grammars"].stop()


def test_serve_asks_for_the_options_that_it_is_given(
    small_artifact: Compiled, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[EngineOptions, Settings]] = []

    def note(_: object, settings: Settings, *, engine: EngineOptions, **__: object) -> None:
        seen.append((engine, settings))
        raise KeyboardInterrupt

    monkeypatch.setattr("lostwax.server.gateway.serve.serve", note)
    line = ["serve", small_artifact.artifact, "--checkpoint", small_artifact.checkpoint]
    lostwax(capsys, *line)
    more = ["--drafts", 0, "--max-running-requests", 2, "--context-length", 30]
    more += ["--chunked-prefill-size", 5, "--max-stall", 2.5, "--disable-radix-cache"]
    more += ["--disable-overlap-schedule"]
    more += ["--max-queued-requests", 6, "--max-queued-tokens", 700]
    lostwax(capsys, *line, *more, "--request-timeout", 7.5)
    asked = EngineOptions(0, False, 2, 2.5, 30, 5, adapt_drafts=True, overlap=False)
    bounded = Settings(max_admitted_reqs=2 + 6, max_admitted_tokens=700, request_timeout_s=7.5)
    num_running = ArtifactReader(small_artifact.artifact).manifest.limits.max_reqs
    usual = Settings(max_admitted_reqs=num_running + MAX_QUEUED_REQS)
    assert seen == [(SERVED, usual), (asked, bounded)]
