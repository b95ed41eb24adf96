"""Every block of README.md is run, or listed here with the reason why it is not.

The steps by hand are run in every test run; the tour with the default model, its server, a client
and a chat in the terminal, takes a compile and a few answers.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from command_line import lostwax
from console_blocks import Example, Fence, commands, compare, fences, run
from pseudo_terminal import CTRL_D, terminal

from lostwax.server.gateway.ready_pipe import Ready

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).parents[2]
README = fences((ROOT / "README.md").read_text(encoding="utf-8"))
(CLIENT,) = fences((ROOT / "docs" / "http.md").read_text(encoding="utf-8"))
"""The page on HTTP shows one client, which is run beside the tour's."""
PLACE = "127.0.0.1:8000"
"""Where the page's server listens; here it takes a free port."""
BY_HAND = ("new-checkpoint", "compile", "plan", "explain", "certify")
NOT_RUN = {
    "./dev serve     # sets up": "it installs packages; the tour runs what it starts",
    "lostwax compile /path/to/DeepSeek-V3.2": "it needs the published checkpoint and a GPU",
}
ESCAPES = r"(?:\x1b\[[\d;?]*[a-zA-Z])*"


def _listed(fence: Fence) -> list[str]:
    return [start for start in NOT_RUN if fence.text.startswith(start)]


def _is_by_hand(fence: Fence) -> bool:
    return fence.language == "console" and fence.text.startswith(
        tuple(f"$ lostwax {command} " for command in BY_HAND)
    )


def _is_of_the_tour(fence: Fence) -> bool:
    starts = ("$ ./dev serve\n", "$ lostwax run\n", "$ lostwax eval --url ")
    return fence.language == "python" or (
        fence.language == "console" and fence.text.startswith(starts)
    )


def _is_output(number: int) -> bool:
    return README[number].language == "text" and README[number - 1].language == "python"


def test_every_block_is_run_or_listed() -> None:
    left = [
        fence.text
        for number, fence in enumerate(README)
        if not (_listed(fence) or _is_by_hand(fence) or _is_of_the_tour(fence))
        and not _is_output(number)
    ]
    assert not left, f"run these in tests/docs/test_readme.py, or list them with a reason: {left}"
    unused = set(NOT_RUN) - {start for fence in README for start in _listed(fence)}
    assert not unused, f"no block of README.md begins so: {unused}"
    assert len(README) > len(NOT_RUN) + 5


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with this one's rules of what git ignores and its examples, as the cwd."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copy(ROOT / ".gitignore", folder)
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    subprocess.run(["git", "-C", folder, "add", "."], check=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def _untracked(folder: Path) -> str:
    command = ["git", "-C", str(folder), "status", "--porcelain"]
    status = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return "\n".join(line for line in status.splitlines() if not line.startswith("A "))


def test_the_steps_by_hand_print_what_they_show_and_leave_git_nothing(
    checkout: Path, capsys: Capture
) -> None:
    def command(arguments: list[str]) -> tuple[int, str]:
        status, out, err = lostwax(capsys, *arguments)
        return status, err + out

    ran = 0
    for fence in filter(_is_by_hand, README):
        for example in commands(fence):
            run(example, checkout, command)
            ran += 1
    assert ran == len(BY_HAND)
    assert _untracked(checkout) == ""
    (checkout / "ck").mkdir()
    (checkout / "ck" / "config.json").touch()
    assert _untracked(checkout) == "?? ck/"


@contextmanager
def _server(example: Example) -> Generator[str]:
    """What `./dev serve` starts; its HOST:PORT, once it printed what the page shows."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "lostwax", "serve", "--port", "0", "--ready-fd", str(writing)]
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    printed: list[str] = []
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, pass_fds=[writing], env=environment
    ) as server:
        os.close(writing)
        try:
            assert server.stderr is not None
            reader = threading.Thread(target=printed.extend, args=(server.stderr,), daemon=True)
            reader.start()
            with open(reading, "rb") as pipe:
                said = pipe.read()
            assert said, "".join(printed)
            place = f"127.0.0.1:{msgspec.json.decode(said, type=Ready).port}"
            yield place
        finally:
            server.terminate()
            server.wait()
    reader.join()
    shown = Example(example.command, [*example.output, "stopped"])
    compare(shown, "".join(printed).replace(place, PLACE))


def _program(fence: Fence, place: str) -> str:
    """What a Python block prints."""
    command = [sys.executable, "-c", fence.text.replace(PLACE, place)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _chat(example: Example) -> None:
    """Type what stands behind `> `, and see the other lines."""
    with terminal(*example.command.split()[1:]) as user:
        for line in example.output:
            if line.startswith("> "):
                user.expect("> ")
                user.type(line.removeprefix("> ") + "\n")
            elif line:
                user.expect(ESCAPES.join(map(re.escape, line)))
        user.expect("> ")
        user.type(CTRL_D)
        assert user.status() == 0


@pytest.mark.slow
def test_the_tour_prints_what_it_shows_and_leaves_git_nothing(
    checkout: Path, capsys: Capture
) -> None:
    tour = [(n, fence) for n, fence in enumerate(README) if _is_of_the_tour(fence)]
    (first,) = commands(tour[0][1])
    assert first.command == "./dev serve"
    with _server(first) as place:
        for number, fence in tour[1:]:
            if fence.language == "python":
                assert _program(fence, place).strip() == README[number + 1].text.strip()
                continue
            (example,) = commands(fence)
            if example.command == "lostwax run":
                _chat(example)
            else:
                _ask(example, place, checkout, capsys)
        assert "42" in _program(CLIENT, place)
    assert _untracked(checkout) == ""


def _ask(example: Example, place: str, folder: Path, capsys: Capture) -> None:
    def command(arguments: list[str]) -> tuple[int, str]:
        status, out, err = lostwax(capsys, *arguments)
        return status, err + out

    run(Example(example.command.replace(PLACE, place), example.output), folder, command)
