"""What the page on load shows is what the commands print, beside a server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from command_line import lostwax
from console_blocks import examples, fences, run
from http_server import running
from load_stub import LoadStub

PAGE = (Path(__file__).parents[2] / "docs" / "load.md").read_text(encoding="utf-8")
SHOWN = "http://127.0.0.1:8000"


def test_the_commands_of_the_page_print_what_it_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def command(arguments: list[str]) -> tuple[int, str]:
        status, out, err = lostwax(capsys, *arguments)
        return status, err + out  # the result comes last

    shown = list(examples(PAGE))
    assert any(SHOWN in example.command for example in shown)
    with running(LoadStub(first_s=0.01, gap_s=0.01).app()) as url:
        for example in shown:
            here = [line.replace(SHOWN, url) for line in example.output]
            asked = example.command.replace(SHOWN, url)
            run(replace(example, command=asked, output=here), tmp_path, command)


def test_the_datasets_form_is_one_that_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (form,) = (fence.text for fence in fences(PAGE) if fence.language == "json")
    path = tmp_path / "talks.json"
    path.write_text(form.replace("Events that …", "Events that come at any time."))
    stub = LoadStub()
    with running(stub.app()) as url:
        asked = ("--url", url, "--dataset", path, "--num-prompts", 1, "--warmups", 0)
        status, _, err = lostwax(capsys, "bench", "serve", *asked)
    assert status == 0
    assert f"{path}: 1 prompts, 0 left out" in err
    assert stub.bodies[0]["prompt"] == "What is a poisson process?"
