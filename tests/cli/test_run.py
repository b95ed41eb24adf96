"""`lostwax run`: a chat in a terminal, one answer for a script, and servers that end with it."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
from chat_stub import ChatStub
from command_line import lostwax, one_sentence
from http_server import running
from pseudo_terminal import CTRL_C, CTRL_D, terminal
from small_fixtures import Compiled

from lostwax.cli.served_child import ServerEnded, served_child

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def stub() -> ChatStub:
    return ChatStub()


@pytest.fixture
def url(stub: ChatStub) -> Generator[str]:
    with running(stub.app()) as base:
        yield base


def test_a_chat_in_the_terminal_streams_and_remembers(stub: ChatStub, url: str) -> None:
    with terminal("run", "--url", url, "--system", "Be brief.") as user:
        user.expect("/help.*> ")
        user.type("say hello there\n")
        user.expect("hello there.*> ")
        user.type("think it is 4\n")
        # Reasoning is dim and apart from the answer.
        user.expect(r"\x1b\[2mLet me \x1b\[0m\x1b\[2msee\.\x1b\[0m\n\nit is 4.*> ")
        user.type("cut off\n")
        user.expect("limit of tokens.*> ")
        user.type("/thinking on\n")
        user.expect("thinking is on.*> ")
        user.type("/clear\n")
        user.expect("forgotten.*> ")
        user.type("/clera\n")
        user.expect("/clera is no command.*/exit.*> ")
        user.type("say bye\n")
        user.expect("bye.*> ")
        user.type(CTRL_D)
        assert user.status() == 0
    system = {"role": "system", "content": "Be brief."}
    first = {"role": "user", "content": "say hello there"}
    answer = {"role": "assistant", "content": "hello there "}
    assert stub.bodies[0]["messages"] == [system, first]
    assert stub.bodies[1]["messages"][:3] == [system, first, answer]
    assert stub.bodies[2]["messages"][4] == {"role": "assistant", "content": "it is 4 "}
    assert "chat_template_kwargs" not in stub.bodies[2]
    assert stub.bodies[3]["messages"] == [system, {"role": "user", "content": "say bye"}]
    assert stub.bodies[3]["chat_template_kwargs"] == {"thinking": True}


def test_ctrl_c_stops_the_answer_and_not_the_program(stub: ChatStub, url: str) -> None:
    with terminal("run", "--url", url) as user:
        user.expect("> ")
        user.type("count\n")
        user.expect("word5 ")
        user.type(CTRL_C)
        user.expect("stopped.*> ")
        assert stub.left.wait(60), "the server must see that the request ended"
        user.interrupt("Ctrl-D or /exit leaves.*> ")
        user.type("say more\n")
        user.expect("\nmore.*> ")
        user.type("/exit\n")
        assert user.status() == 0
    question, part, _ = stub.bodies[1]["messages"]
    assert question == {"role": "user", "content": "count"}
    assert part["role"] == "assistant"
    assert part["content"].startswith("word0 word1 ")


def test_a_failed_turn_is_one_line_and_forgotten(stub: ChatStub, url: str) -> None:
    with terminal("run", "--url", url) as user:
        for asked, said in {
            "fail": r"error: n: only 1 is supported\x1b",
            "break now": r"now \n\S*error: the engine ended\x1b",
            "forge": r"error: no \\x1b\[2Jlostwax: yes\x1b",
            "babble": "error: the server sent something else than expected",
        }.items():
            user.expect("> ")
            user.type(f"{asked}\n")
            user.expect(said)
        user.expect("> ")
        user.type("say fine\n")
        user.expect("\nfine.*> ")
        user.type(CTRL_D)
        assert user.status() == 0
    assert stub.bodies[-1]["messages"] == [{"role": "user", "content": "say fine"}]


def test_an_answer_cannot_steer_the_terminal(url: str) -> None:
    with terminal("run", "--url", url) as user:
        user.expect("> ")
        user.type("say a\x16\x1b]0;title\x16\x07b [red]c[/red]\n")  # Ctrl-V takes the key as it is
        seen = user.expect("\na.*?> ")[0]
        assert "\x1b]0;title" not in seen
        assert "]0;titleb [red]c[/red]" in seen


def test_a_terminal_without_a_server_says_so_and_goes_on() -> None:
    with terminal("run", "--url", _closed_url()) as user:
        for _ in range(2):
            user.expect("> ")
            user.type("hello\n")
            user.expect("error: no server answers at http://127.0.0.1:")
        user.expect("> ")
        user.type(CTRL_D)
        assert user.status() == 0


def test_prompts_are_answered_as_plain_text(capsys: Capture, stub: ChatStub, url: str) -> None:
    options = ("--url", f"{url}/v1/", "--model", "other", "--max-tokens", "9", "--no-thinking")
    options += ("--temperature", "0.5", "--top-p", "0.9")
    status, out, err = lostwax(
        capsys, "run", *options, "--prompt", "think 4", "--prompt", "say [b]x"
    )
    assert (status, out, err) == (0, "4 \n[b]x \n", "")
    assert [len(body["messages"]) for body in stub.bodies] == [1, 3]
    sent = stub.bodies[0] | {"messages": None}
    assert sent == {
        "model": "other",
        "messages": None,
        "stream": True,
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "chat_template_kwargs": {"thinking": False},
    }


def test_a_plain_answer_cannot_steer_the_terminal_either(capsys: Capture, url: str) -> None:
    said = lostwax(capsys, "run", "--url", url, "--prompt", "say a\x1b[2J\x9b31m\rb\nc")
    assert said == (0, "a[2J31mb\nc \n", "")


def test_a_piped_prompt_is_answered(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("say two\nlines\n"))
    assert lostwax(capsys, "run", "--url", url) == (0, "two\nlines \n", "")


def test_mistakes_of_a_script_are_one_sentence_and_status_1(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, stub: ChatStub, url: str, tmp_path: Path
) -> None:
    stub.key = "secret"
    (tmp_path / "key").write_text("secret\n")
    keyed = ("--url", url, "--api-key-file", tmp_path / "key")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").touch()
    cases: dict[tuple[object, ...], str] = {
        ("--url", url, "--prompt", "x"): "wrong key",
        (*keyed, "--prompt", "fail"): "n: only 1 is supported",
        (*keyed, "--prompt", "forge"): "no \\x1b[2Jlostwax: yes",
        (*keyed, "--prompt", "break x"): "the engine ended",
        ("--url", _closed_url(), "--prompt", "x"): "no server answers at http://127.0.0.1:",
        ("--url", "ftp://host", "--prompt", "x"): "give one like http://HOST:PORT",
        ("--url", "http://a..b", "--prompt", "x"): "no server answers at http://a..b",
        ("--url", url, "--prompt", "x\udcff"): "the prompt is no text in UTF-8",
        ("--url", url, "--system", "\udcff", "--prompt", "x"): "the prompt is no text in UTF-8",
        ("--url", url, model, "--prompt", "x"): "give PATH or --url, not both",
        ("--url", url, "--cache", tmp_path, "--prompt", "x"): "--cache is where the default model",
        ("--model", "x", "--prompt", "x"): "go with --url",
        (tmp_path, "--prompt", "x"): "is neither an artifact",
        (
            "--url",
            url,
            "--temperature",
            "nan",
            "--prompt",
            "x",
        ): "--temperature must be in 0..2, not nan",
        ("--url", url, "--top-p", "inf", "--prompt", "x"): "--top-p must be above 0 and",
        ("--url", url): "the prompt is empty; pipe one, or give --prompt TEXT",
        ("--url", url, "--prompt", " "): "the prompt is empty",
    }
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    for arguments, expected in cases.items():
        status, _, err = lostwax(capsys, "run", *arguments)
        assert status == 1
        assert expected in one_sentence(err)


def test_a_pipe_that_is_no_text_is_one_sentence(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    piped = io.TextIOWrapper(io.BytesIO(b"say \xff\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", piped)
    status, _, err = lostwax(capsys, "run", "--url", url)
    assert status == 1
    assert "standard input is no text in UTF-8" in one_sentence(err)


def test_typed_bytes_that_are_no_text_do_not_end_the_chat(stub: ChatStub, url: str) -> None:
    with terminal("run", "--url", url) as user:
        user.expect("> ")
        user.type("say \udcff\n")
        user.expect("no text in UTF-8.*> ")
        user.type("say fine\n")
        user.expect("\nfine.*> ")
        user.type(CTRL_D)
        assert user.status() == 0
    assert len(stub.bodies) == 1


def _closed_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def _arguments(compiled: Compiled, certificates: Path) -> list[str]:
    """The artifact is other tests', too: what its probes show is kept elsewhere."""
    kept = ["--certificates", str(certificates)]
    return [str(compiled.artifact), "--checkpoint", str(compiled.checkpoint), *kept]


def test_a_served_child_answers_and_ends_with_its_block(
    small_artifact: Compiled, tmp_path: Path
) -> None:
    said: list[str] = []
    with served_child(_arguments(small_artifact, tmp_path), said.append) as url:
        assert httpx.get(f"{url}/ready").status_code == 200
    assert any("load weights" in line for line in said)
    assert not _answers(url)


def test_a_served_child_ends_when_its_parent_is_killed(
    small_artifact: Compiled, tmp_path: Path
) -> None:
    code = (
        "import sys, time; from lostwax.cli.served_child import served_child as s\n"
        "with s(sys.argv[1:]) as url:\n print(url, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, *_arguments(small_artifact, tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().decode().strip()
        assert httpx.get(f"{url}/ready").status_code == 200
        os.kill(parent.pid, signal.SIGKILL)
    end = time.monotonic() + 10  # the child looks four times a second
    while _answers(url):
        assert time.monotonic() < end, "the server outlives its parent"


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").status_code > 0
    except httpx.TransportError:
        return False


def test_a_child_that_cannot_serve_gives_its_reason(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerEnded, match=r"did not start: .* is neither an artifact"),
        served_child([str(tmp_path)]),
    ):
        pass


@pytest.mark.slow
def test_the_default_model_answers_in_the_terminal_and_to_a_script(
    capsys: Capture, tmp_path: Path
) -> None:
    status, out, err = lostwax(capsys, "run", "--cache", tmp_path, "--prompt", "What is 17 + 25?")
    assert (status, err) == (0, "")
    assert "42" in out
    with terminal("run", "--cache", tmp_path) as user:
        user.expect("lostwax-tiny; /help.*> ")
        user.type("What is 17 + 25?\n")
        user.expect("42.*> ")
        user.type(CTRL_D)
        assert user.status() == 0
