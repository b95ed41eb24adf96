"""`serve --chat-template` and the parsers: what the gateway is told, and what is refused first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import lostwax, one_sentence
from small_fixtures import Compiled

from lostwax.server.gateway.chat_settings import OF_CHECKPOINT, ChatSettings
from lostwax.server.gateway.settings import Settings

Capture = pytest.CaptureFixture[str]
Told = Callable[..., ChatSettings | str]


@pytest.fixture
def told(small_artifact: Compiled, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> Told:
    """What a server of the small artifact is told of chats, or the sentence that refuses it."""
    seen: list[Settings] = []

    def run(artifact: Path, settings: Settings, **more: object) -> None:
        del artifact, more
        seen.append(settings)

    monkeypatch.setattr("lostwax.server.gateway.serve.serve", run)

    def serve(*words: object) -> ChatSettings | str:
        where = (small_artifact.artifact, "--checkpoint", small_artifact.checkpoint, "--port", 0)
        status, _, err = lostwax(capsys, "serve", *where, *words)
        return one_sentence(err) if status else seen[-1].chats

    return serve


def test_without_options_chats_are_the_checkpoints(told: Told) -> None:
    assert told() == OF_CHECKPOINT
    assert told("--tool-call-parser", "deepseekv32") == ChatSettings(calls="deepseekv32")


def test_none_reads_nothing(told: Told) -> None:
    assert told("--tool-call-parser", "none") == ChatSettings(calls="none")
    assert told("--reasoning-parser", "none") == ChatSettings(splits_reasoning=False)


def test_a_template_is_tried_and_told(told: Told, tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{{ messages[0].content }}{{ tools }}")
    found = told("--chat-template", path, "--tool-call-parser", "deepseekv31")
    assert isinstance(found, ChatSettings)
    assert found.template is not None
    assert (found.template.name, found.calls) == (path.name, "deepseekv31")
    assert found.template.reads == {"messages", "tools"}
    said = told("--chat-template", path, "--tool-call-parser", "hermes")
    assert "give one of deepseekv32, deepseekv31, none" in str(said)


def test_a_file_of_options_names_a_template(told: Told, tmp_path: Path) -> None:
    path, config = tmp_path / "mine.jinja", tmp_path / "serve.toml"
    path.write_text("x")
    config.write_text(f'[serve]\nchat-template = "{path}"\nreasoning-parser = "none"\n')
    found = told("--config", config)
    assert isinstance(found, ChatSettings)
    assert (found.template and found.template.name, found.splits_reasoning) == (path.name, False)


def test_a_template_that_does_not_do_is_refused_before_anything_starts(
    capsys: Capture, tmp_path: Path
) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("a\n{% for %}")
    status, out, err = lostwax(capsys, "serve", "--chat-template", path, "--port", 0)
    assert (status, out) == (1, "")
    assert f"--chat-template {path}: the chat template cannot be rendered" in one_sentence(err)
    assert "line 2" in err
