"""What `lostwax completion` prints completes commands and options."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import lostwax

from lostwax.cli.commands import COMMANDS


def script(capsys: pytest.CaptureFixture[str], shell: str) -> str:
    status, out, err = lostwax(capsys, "completion", shell)
    assert (status, err) == (0, "")
    return out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = script(capsys, shell)
    assert "lostwax" in found
    for name in COMMANDS:
        assert all(word in found for word in name.split())
    assert "max-concurrency" in found


@pytest.mark.parametrize(
    ("words", "wanted", "unwanted"),
    [
        (["lostwax", "ser"], "serve", "plan"),
        (["lostwax", "ben"], "bench", "serve"),
        (["lostwax", "bench", ""], "serve", "plan"),
        (["lostwax", "bench", "serve", "--max"], "--max-concurrency", "--port"),
        (["lostwax", "serve", "--po"], "--port", "--max-concurrency"),
        (["lostwax", "completion", "z"], "zsh", "fish"),
    ],
)
def test_bash_completes(
    words: list[str],
    wanted: str,
    unwanted: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "lostwax.bash"
    path.write_text(script(capsys, "bash"))
    ask = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _lostwax; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", ask, str(path), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert wanted in done.stdout.split()
    assert unwanted not in done.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_that_is_here_takes_its_script(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if (found := shutil.which(shell)) is None:
        pytest.skip(f"{shell} is not installed")
    path = tmp_path / "script"
    path.write_text(script(capsys, shell))
    done = subprocess.run([found, "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
