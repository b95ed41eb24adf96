"""`lostwax eval` against a server over real HTTP, whose answers are known beforehand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from http_server import running
from openai_stub import Stub

from lostwax.cli import main
from lostwax.cli.eval_progress import Progress

DSML = "｜DSML｜"  # noqa: RUF001
Serve = Callable[[Stub], str]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where unfinished samples are kept without --out."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lostwax" / "evals"


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(stub: Stub) -> str:
            url = stack.enter_context(running(stub.app()))
            stack.callback(stub.released.set)  # a held request would hold the server's end, too
            return url

        yield start


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prompt(id_: str, text: str, right: str = "42") -> dict[str, Any]:
    return {"id": id_, "kind": "number", "prompt": text, "reference": {"value": right}}


def user(id_: str, text: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"id": id_, "kind": "number", "messages": messages, "reference": {"value": "42"}} | more


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = 0
    try:
        main(["eval", *map(str, arguments)])
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_right_wrong_and_why(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = Stub()
    path = write(
        tmp_path / "sums.jsonl",
        prompt("right", "say 42") | {"completion": "42"},
        prompt("wrong", "say 41") | {"completion": "42"},
        prompt("none", "say nothing"),
        prompt("cut", "cut say first"),
    )
    status, out, err = evaluate(capsys, path, "--url", serve(stub), "--json")
    report = json.loads(out)
    assert (status, report["model"], report["source"]) == (0, "stub", "url")
    (task,) = report["tasks"]
    found = task["metrics"]
    assert found["reasons"] == {"correct": 1, "wrong_value": 1, "no_answer": 1, "cut_off": 1}
    assert (found["accuracy"], found["exact"], found["errors"]) == (0.25, 0.5, 0)
    assert (found["prompt_tokens"], found["completion_tokens"]) == (12, 8)
    assert "asking stub (url)" in err
    assert stub.bodies[0] == {
        "model": "stub",
        "max_tokens": 512,
        "temperature": 0.0,
        "prompt": "say 42",
    }


def test_messages_go_to_chat_and_tools_are_rendered_and_parsed(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = Stub()
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "", "tools": tools},
        {"role": "user", "content": "say I call it. refuse"},
    ]
    call = {"calls": [{"name": "add", "arguments": {"a": 2}}]}
    tool = {"id": "t", "kind": "tools", "messages": messages, "reference": call}
    path = write(
        tmp_path / "m.jsonl",
        user("chat", "say 42"),
        user("think", "say 6 * 7//42", thinking=True, completion="6 * 7</think>42"),
    )
    status, out, _ = evaluate(capsys, path, "--url", serve(stub), "--json", "--concurrency", 1)
    assert status == 0
    assert json.loads(out)["tasks"][0]["metrics"]["exact"] == 1.0
    assert [b.get("chat_template_kwargs") for b in stub.bodies] == [None, {"thinking": True}]
    # The stub repeats a prompt's words, so that a rendered prompt is seen in its answer.
    path = write(tmp_path / "t.jsonl", tool)
    messages[1]["content"] = "hello"
    write(path, tool)
    status, out, _ = evaluate(capsys, path, "--url", serve(stub), "--json")
    assert json.loads(out)["tasks"][0]["metrics"]["reasons"] == {"wrong_call": 1}
    rendered = stub.bodies[-1]["prompt"]
    assert rendered.endswith("<｜User｜>hello<｜Assistant｜></think>")  # noqa: RUF001
    assert f"<{DSML}function_calls>" in rendered
    messages[0]["response_format"] = {"type": "object"}
    write(path, tool)
    status, _, err = evaluate(capsys, path, "--url", serve(stub), "--endpoint", "chat")
    assert status == 1
    assert "t has response_format in a system message, where chats have no place" in err


def test_a_failed_request_is_counted_shown_and_status_one(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(
        tmp_path / "f.jsonl",
        prompt("a", "say 42"),
        prompt("b", "refuse"),
        prompt("c", "babble"),
        prompt("d", "refuse again"),
    )
    status, out, _ = evaluate(capsys, path, "--url", serve(Stub()), "--concurrency", 1)
    assert status == 1
    assert "f: 2 failed, first b/0: status 400: n: only 1 is supported" in out
    assert "f: 1 failed, first c/0: no OpenAI-compatible answer" in out
    line = next(line for line in out.splitlines() if line.startswith("f "))
    assert line.split()[:5] == ["f", "100.0%", "-", "1", "3"], "errors are in no accuracy"


def test_a_server_that_is_gone_is_not_asked_for_ever_and_one_that_refuses_is(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for word, asked in (("break", 32), ("refuse", 100)):
        stub = Stub()
        path = write(tmp_path / "g.jsonl", *[prompt(f"p{n}", word) for n in range(100)])
        status, out, _ = evaluate(capsys, path, "--url", serve(stub), "--json", "--concurrency", 1)
        assert status == 1
        assert len(stub.bodies) == asked
        assert json.loads(out)["tasks"][0]["metrics"]["errors"] == 100


def test_overload_is_waited_for_and_leaves_no_trace_in_the_result(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = Stub(busy=5)
    path = write(tmp_path / "o.jsonl", *[prompt(f"p{n}", "say 42") for n in range(4)])
    out = tmp_path / "out"
    status, text, _ = evaluate(capsys, path, "--url", serve(stub), "--out", out, "--json")
    assert status == 0
    assert json.loads(text)["tasks"][0]["metrics"]["accuracy"] == 1.0
    assert len(stub.bodies) == 9
    lines = [json.loads(line) for line in (out / "o.samples.jsonl").read_text().splitlines()]
    assert sum(line["retries"] for line in lines[1:]) == 5
    assert json.loads((out / "report.json").read_text()) == json.loads(text)


def test_repeats_differ_by_seed_and_give_pass_at_k(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = Stub()
    path = write(tmp_path / "r.jsonl", prompt("a", "say 42"), prompt("b", "say 41"))
    options = ("--temperature", 1, "--top-p", 0.95, "--repeats", 4, "--seed", 7)
    status, out, _ = evaluate(capsys, path, "--url", serve(stub), *options)
    assert status == 0
    assert sorted(body["seed"] for body in stub.bodies) == [7, 7, 8, 8, 9, 9, 10, 10]
    assert {body["top_p"] for body in stub.bodies} == {0.95}
    assert "pass@2 50.0%, pass@4 50.0%, majority 50.0%" in out


def test_a_rerun_asks_only_what_is_missing_and_refuses_other_settings(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = Stub()
    url = serve(stub)
    path = write(tmp_path / "r.jsonl", prompt("a", "say 42"), prompt("b", "refuse"))
    kept = ("--url", url, "--out", tmp_path / "out")
    assert evaluate(capsys, path, *kept, "--limit", 1)[0] == 0
    assert evaluate(capsys, path, *kept)[0] == 1, "what failed is not kept"
    write(path, prompt("a", "say 42"), prompt("b", "refuse"), prompt("c", "say 1", "1"))
    stub.bodies.clear()
    status, out, _ = evaluate(capsys, path, *kept, "--json")
    assert status == 1
    assert sorted(body["prompt"] for body in stub.bodies) == ["refuse", "say 1"]
    (task,) = json.loads(out)["tasks"]
    assert (task["resumed"], task["metrics"]["samples"], task["metrics"]["errors"]) == (1, 2, 1)
    status, _, err = evaluate(capsys, path, *kept, "--max-tokens", 9)
    assert status == 1
    assert "max_tokens was 512 and is 9" in err
    for changed in (
        prompt("a", "say 43", "43"),
        prompt("a", "say 42") | {"kind": "integer"},
        prompt("a", "say 42") | {"completion": "43"},
    ):
        write(path, changed)
        status, _, err = evaluate(capsys, path, *kept)
        assert status == 1
        assert "a was asked otherwise when its sample was kept; give --restart" in err
    assert evaluate(capsys, path, *kept, "--restart")[0] == 0


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_ended_goes_on(serve: Serve, tmp_path: Path, end: signal.Signals) -> None:
    stub = Stub(held=20)
    url = serve(stub)
    path = write(tmp_path / "k.jsonl", *[prompt(f"p{n}", "say 42") for n in range(50)])
    command = [sys.executable, "-m", "lostwax", "eval", str(path), "--url", url]
    command += ["--concurrency", "1", "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        assert stub.holding.wait(timeout=240)
        os.kill(first.pid, end)
        _, err = first.communicate(timeout=60)
    if end == signal.SIGINT:
        assert first.returncode == 130
        last = f"stopped; {tmp_path / 'out'} holds what is finished, and the same command goes on\n"
        assert err.decode().endswith(last)
    stub.released.set()
    stub.bodies.clear()
    stub.held = None
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    (task,) = json.loads(done.stdout)["tasks"]
    assert (task["resumed"], task["metrics"]["samples"]) == (19, 50)
    assert len(stub.bodies) == 31


def test_ctrl_c_ends_a_compile_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", prompt("a", "say 42"))
    code = (
        "import sys, time; from lostwax.cli import default_model, main\n"
        "def compiling(**_): print('compiling', flush=True); time.sleep(600)\n"
        "default_model.default_artifact = compiling; main(['eval', *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"compiling\n"
        os.kill(process.pid, signal.SIGINT)
        try:
            assert process.wait(20) == 130
        finally:
            process.kill()


def test_models_keys_and_urls(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "p.jsonl", prompt("a", "say 42"))
    two = serve(Stub(models=("one", "two")))
    locked = serve(Stub(key="sesame"))
    key = tmp_path / "key"
    key.write_text("sesame\n")
    (tmp_path / "binary").write_bytes(b"\xff\n")
    (tmp_path / "manifest.json").touch()
    assert evaluate(capsys, path, "--url", f"{two}/v1/", "--model", "two")[0] == 0
    assert evaluate(capsys, path, "--url", locked, "--api-key-file", key)[0] == 0
    for options, message in (
        (("--url", two), "serves one, two; name one of them with --model"),
        (("--url", locked), "answers 401 to GET /v1/models"),
        (("--url", "http://127.0.0.1:9"), "no server answers at http://127.0.0.1:9"),
        (("--url", "nonsense"), "nonsense"),
        (("--url", "http://127.0.0.1:99999"), "its port must be in 0..65535"),
        (("--url", two, "--artifact", tmp_path), "give --url or --artifact, not both"),
        (
            ("--url", two, "--drafts", 1, "--threads", 2),
            "--drafts and --threads would change nothing",
        ),
        (("--artifact", tmp_path, "--dtype", "fp32"), "is compiled already, and --dtype"),
        (("--url", two, "--shots", 4), "--shots goes with gsm8k, and"),
        (("--model", "one"), "--model and --api-key-file go with --url"),
        (("--url", two, "--limit", 0), "--limit must be in 1..2147483647, not 0"),
        (("--url", two, "--model", "two", "--repeats", 2), "repeats at temperature 0"),
        (("--url", two, "--concurrency", 0), "--concurrency must be in 1..4096, not 0"),
        (("--url", two, "--api-key-file", tmp_path), "is a folder; give a file"),
        (("--url", two, "--api-key-file", tmp_path / "binary"), "holds no API key"),
    ):
        status, _, err = evaluate(capsys, path, *options)
        assert status == 1
        assert err.splitlines()[-1].startswith("lostwax: "), err
        assert message in err


def test_tasks_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "sums.jsonl", prompt("a", "x"), user("b", "y"))
    status, out, _ = evaluate(capsys, "--list")
    assert status == 0
    assert {"tiny", "gsm8k", "gpqa", "aime"} <= {line.split()[0] for line in out.splitlines()}
    assert "2 examples  number" in evaluate(capsys, path, "--list")[1]
    status, out, _ = evaluate(capsys, path, "tiny", "--list", "--tasks", "sums, json")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == ["sums", "json"]


def test_a_stopped_run_goes_on_by_default_and_a_complete_one_is_forgotten(
    serve: Serve, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = Stub()
    url = serve(stub)
    examples = [prompt("a", "say 42"), prompt("b", "break"), prompt("c", "say 1", "1")]
    path = write(tmp_path / "d.jsonl", *examples)
    assert evaluate(capsys, path, "--url", url)[0] == 1, "a request failed"
    (kept,) = cache.iterdir()
    stub.bodies.clear()
    status, out, err = evaluate(capsys, path, "--url", url, "--json")
    assert [body["prompt"] for body in stub.bodies] == ["break"], "only what is missing is asked"
    assert f"d: going on with 2 samples of {kept} (--restart forgets them)" in err
    assert (status, json.loads(out)["tasks"][0]["resumed"]) == (1, 2)

    # Whatever decides an answer or its grade makes another run.
    evaluate(capsys, path, "--url", url, "--max-tokens", 9)
    evaluate(capsys, path, "--url", serve(Stub()))
    write(path, *examples[:2], prompt("c", "say 2", "2"))
    evaluate(capsys, path, "--url", url)
    assert len(list(cache.iterdir())) == 4

    write(path, *examples[:1], examples[2])
    for _ in range(2):
        stub.bodies.clear()
        assert evaluate(capsys, path, "--url", url)[0] == 0
        assert len(stub.bodies) == 2, "a complete run is asked anew"
    assert len(list(cache.iterdir())) == 4


def test_a_cache_that_cannot_be_written_is_said_and_stops_nothing(
    serve: Serve,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    path = write(tmp_path / "w.jsonl", prompt("a", "say 42"))
    status, out, err = evaluate(capsys, path, "--url", serve(Stub()))
    assert status == 0
    assert "100.0%" in out
    assert "give --out DIR to keep them" in err


def test_without_a_terminal_a_line_says_now_and_then_how_it_goes(
    serve: Serve,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stub = Stub(held=3)
    path = write(tmp_path / "n.jsonl", *[prompt(f"p{n}", "say 42") for n in range(6)])
    said: list[str] = []

    class Quick(Progress):
        def __init__(self) -> None:
            super().__init__(interval_s=0.02)

        def _say(self) -> None:
            super()._say()
            said.append(capsys.readouterr().err)
            if "n: 2 of 6, 100.0% right, " in said[-1]:  # while an answer is awaited
                stub.released.set()

    monkeypatch.setattr("lostwax.cli.eval_progress.Progress", Quick)
    status, _, _ = evaluate(capsys, path, "--url", serve(stub), "--concurrency", 1)
    assert status == 0
    assert stub.released.is_set()
    assert "s left\n" in "".join(said)
    assert "n: 6 of 6, 100.0% right, " in said[-1]
