"""An -o where no folder can be: one sentence, before anything is compiled or a device is opened."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
from command_line import Run, listing, lostwax, one_sentence

from lostwax.cli.default_model import default_checkpoint

WAYS = ("compile", "container", "bring-up")
PLACES = {
    "file/x": "file/x cannot be made: .*file is no folder; give another path",
    "/proc/x": "takes no folders.*; give another|/proc may not be written; give another path",
    "/dev/null/x": "/dev/null is no folder; give another path",
    "loop": "loop is a link that leads nowhere; give another path",
    "loop/x": "is a link that leads nowhere; give another path|is no folder; give another path",
    "a\0b": "is no path: embedded null byte; give another",
    "a" * 300: "cannot be made: File name too long; give another path",
    "a" * 300 + "/x": "cannot be made: File name too long; give another path",
    "/": "/ exists and is n.*; give another -o or remove it",
    ".": " exists and is n.*; give another -o or remove it",
    "..": " exists and is n.*; give another -o or remove it",
    "new/..": " exists and is n.*; give another -o or remove it",
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return partial(lostwax, capsys)


@pytest.mark.parametrize("place", PLACES, ids=lambda place: repr(place[:12]))
@pytest.mark.parametrize("way", WAYS)
def test_a_place_that_cannot_be_is_one_sentence(
    way: str, place: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expensive(*_: object, **__: object) -> NoReturn:
        pytest.fail("it goes on")

    monkeypatch.setattr("lostwax.cli.doctor.examine", expensive)
    monkeypatch.setattr("lostwax.server.gateway.tokenizer_file.read_tokenizer", expensive)
    monkeypatch.setattr("lostwax.containers.write.write_folder", expensive)
    here = tmp_path / "here"
    here.mkdir()
    (here / "file").touch()
    (here / "loop").symlink_to("loop")
    before = listing(tmp_path)
    monkeypatch.chdir(here)
    status, _, err = run(way, default_checkpoint() if way == "compile" else "cpu", "-o", place)
    assert status == 1
    assert re.search(PLACES[place], one_sentence(err))
    assert listing(tmp_path) == before
