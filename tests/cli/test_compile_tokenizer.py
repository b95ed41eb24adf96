"""`lostwax compile` and `tokenizer.json`: it is read within bounds, tried, and kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import QUICK, listing, lostwax, one_sentence
from http_server import small_tokenizer

FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a device": (lambda path: path.symlink_to("/dev/zero"), "is a device, not a file"),
    "a FIFO": (os.mkfifo, "is a FIFO, not a file"),
    "a dangling link": (lambda path: path.symlink_to("nowhere"), "does not exist"),
    "a folder": (Path.mkdir, "is a folder, not a file"),
    "too large": (lambda path: _sparse(path), "and at most 268435456 are read"),
    "none": (lambda path: path.write_text('{"a": 1}'), "is no tokenizer"),
    "a panic": (lambda path: path.write_text(_panics()), "fails on ordinary texts"),
}


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def _panics() -> str:
    broken = '"pre_tokenizer":{"type":"FixedLength","length":0}'
    whole = small_tokenizer().to_str()
    start = whole.index('"pre_tokenizer":')
    return whole[:start] + broken + whole[whole.index(',"post_processor"') :]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_no_tokenizer_is_refused_before_the_capture(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    put, message = FAULTS[fault]
    folder = shutil.copytree(small_checkpoint, tmp_path / "ckpt")
    put(folder / "tokenizer.json")
    before = listing(tmp_path)
    status, out, err = lostwax(capsys, "compile", folder, "-o", tmp_path / "art", *QUICK)
    assert (status, out) == (1, "")
    said = one_sentence(err)
    assert f"{folder / 'tokenizer.json'} " in said
    assert message in said
    assert "download the checkpoint again" in said
    assert "capture" not in err
    assert listing(tmp_path) == before


def test_the_artifact_holds_the_bytes_that_were_read(
    small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(small_checkpoint, tmp_path / "ckpt")
    written = small_tokenizer().to_str(pretty=True) + "\n\n"
    (folder / "tokenizer.json").write_text(written)
    status, _, _ = lostwax(capsys, "compile", folder, "-o", tmp_path / "art", *QUICK)
    assert status == 0
    assert (tmp_path / "art" / "tokenizer.json").read_text() == written
