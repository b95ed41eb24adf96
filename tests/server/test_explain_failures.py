"""What cannot be explained is a line of the log and a 500, and is read anew after a pause."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_runtime import FakeRuntime
from http_server import running
from small_fixtures import Compiled

from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway import explain, explained
from lostwax.server.gateway.app import create_app
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.explain import PAUSE_S, UNREAD, Explainer
from lostwax.server.gateway.explain_answer import UNREADABLE
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.settings import Build, Settings
from lostwax.server.gateway.tokenizer import IdCodec

HELD = """
import os, sys
from lostwax.server.gateway import explained

def lines(reader, certificates):
    bytearray(int(sys.argv[1]))
    yield str(os.nice(0)).encode()

explained.ArtifactReader, explained.lines = str, lines
explained.main()
"""


@pytest.fixture
def cut(small_artifact: Compiled, tmp_path: Path) -> Path:
    """An artifact that lacks the end of a file."""
    folder = tmp_path / "art"
    shutil.copytree(small_artifact.artifact, folder)
    whole = (folder / "choices.json").read_bytes()
    (folder / "choices.json").write_bytes(whole[:-9])
    return folder


def test_it_is_a_500_and_read_anew(
    cut: Path, small_artifact: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "PAUSE_S", 0)
    settings = Settings(build=Build(9, "ab", "cpu", cut))
    app = create_app(InProcessEngine(EngineCore(FakeRuntime())), IdCodec(), settings)
    with running(app) as url:
        answer = httpx.get(f"{url}/explain", timeout=60)
        assert answer.status_code == 500
        assert answer.json()["error"]["message"] == UNREAD
        shutil.copy(small_artifact.artifact / "choices.json", cut)
        assert httpx.get(f"{url}/explain", timeout=60).status_code == 200


def test_the_log_has_one_line_in_its_own_format(
    cut: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(build=Build(9, "ab", "cpu", cut), log_format="json")
    app = create_app(InProcessEngine(EngineCore(FakeRuntime())), IdCodec(), settings)
    with running(app) as url:
        for _ in range(3):
            assert httpx.get(f"{url}/explain", timeout=60).status_code == 500
    written = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    (failure,) = [line for line in written if line["level"] == "error"]
    assert failure["message"] == (
        f"/explain failed: {cut}/choices.json does not match its digest: recompile the artifact"
    )
    assert failure["trace"] == []


def test_what_failed_is_answered_again_for_a_while(
    cut: Path, small_artifact: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_started, start = 0, asyncio.create_subprocess_exec
    written, seconds = list[str](), [0.0]

    async def counted(*command: Any, **options: Any) -> Any:
        nonlocal num_started
        num_started += 1
        return await start(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", counted)

    async def asked() -> None:
        explainer = Explainer(cut, None, written.append, clock=lambda: seconds[0])
        for _ in range(3):
            with pytest.raises(ApiError, match="cannot be read"):
                await explainer.told()
        shutil.copy(small_artifact.artifact / "choices.json", cut)
        seconds[0] = PAUSE_S - 0.1
        with pytest.raises(ApiError, match="cannot be read"):
            await explainer.told()
        assert (num_started, len(written)) == (1, 1)
        seconds[0] = PAUSE_S
        assert (await explainer.told()).programs
        assert (num_started, len(written)) == (2, 1)

    asyncio.run(asked())


def _failure(command: list[str], **options: Any) -> tuple[str, str]:
    """What a client and the log are told where the reading is another program."""
    written = list[str]()

    async def asked() -> str:
        explainer = Explainer(Path("art"), None, written.append, **options)
        explainer._command = command  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(ApiError) as raised:
            await explainer.told()
        return str(raised.value)

    told = asyncio.run(asked())
    (line,) = written
    return told, line


def test_what_nobody_expected_is_logged_with_its_trace() -> None:
    told, line = _failure([sys.executable, "-c", "1 / 0"])
    assert told == UNREAD
    first, *trace = line.splitlines()
    assert first == "/explain failed: its process ended with code 1"
    assert trace[-1] == "  ZeroDivisionError: division by zero"
    assert _failure([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) == (
        UNREAD,
        "/explain failed: its process ended with code -9",
    )


def test_a_process_that_cannot_be_started_is_a_failure() -> None:
    told, line = _failure(["/no-such-program"])
    assert told == UNREAD
    assert line.startswith("/explain failed: no process can be started: [Errno 2]")


def test_reading_has_a_deadline() -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    told, line = _failure(command, deadline_s=0.01)
    assert told == "reading the artifact took longer than 0.01 s"
    assert line == f"/explain failed: {told}"


def _held(num_bytes: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HELD, str(num_bytes)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_process_gives_way_to_answers() -> None:
    done = _held(0)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == min(os.nice(0) + explained.NICENESS, 19)
    assert os.nice(0) < 19  # or nothing is shown


def test_the_process_is_held_to_its_memory() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    assert most == resource.RLIM_INFINITY or most > explained.MAX_MEMORY_BYTES
    assert _held(explained.MAX_MEMORY_BYTES // 4).returncode == 0
    done = _held(explained.MAX_MEMORY_BYTES)
    assert done.returncode == UNREADABLE
    assert done.stderr.splitlines() == [
        f"{explained.MAX_MEMORY_BYTES} cannot be read (it asks for more memory than there is);"
        " `lostwax verify` it, or recompile"
    ]
