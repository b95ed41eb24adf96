"""`lostwax opt` prints the module, or one clear message and status 1."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from lostwax.cli.opt import opt

CAST = """
func.func @f(%x: !lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, 8], bf16> {
  %y = "core.cast"(%x) : (!lostwax.tensor<[T, 8], f32>) -> !lostwax.tensor<[T, WIDTH], bf16>
  func.return %y : !lostwax.tensor<[T, WIDTH], bf16>
}
"""


def _write(folder: Path, width: str) -> Path:
    file = folder / "module.mlir"
    file.write_text(CAST.replace("WIDTH", width))
    return file


def _error(capsys: pytest.CaptureFixture[str], file: Path, passes: str = "") -> str:
    with pytest.raises(SystemExit) as stopped:
        opt(file, passes=passes)
    assert stopped.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def test_a_module_is_printed_after_its_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opt(_write(tmp_path, "8"), passes="assign-formats{dtype=f32}", dump_dir=tmp_path / "dump")
    assert "-> !lostwax.tensor<[T, 8], f32>" in capsys.readouterr().out
    assert (tmp_path / "dump" / "01-assign-formats.mlir").exists()


def test_a_dash_reads_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(CAST.replace("WIDTH", "8")))
    opt(Path("-"))
    assert "core.cast" in capsys.readouterr().out


def test_a_module_that_does_not_verify_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = _error(capsys, _write(tmp_path, "7"))
    assert error == "lostwax opt: input: @f: core.cast: a cast keeps the shape\n"


def test_a_parse_error_shows_the_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = _error(capsys, _write(tmp_path, "8,"))
    assert "module.mlir:3:" in error


def test_a_wrong_pass_or_file_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Did you mean 'clean-up'" in _error(capsys, _write(tmp_path, "8"), "clean_up")
    assert "No such file" in _error(capsys, tmp_path / "missing.mlir")


def test_the_list_shows_options_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    opt(list_passes=True)
    printed = capsys.readouterr().out
    assert "specialise{segment=... all=false rows=1}" in printed
    assert "a program serves one segment under one guard" in printed
