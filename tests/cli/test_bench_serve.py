"""`lostwax bench serve` against a server over real HTTP, whose tokens and faults are known."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from command_line import lostwax, one_sentence
from http_server import running
from load_stub import LoadStub

SMALL = ("--input-len", 5, "--output-len", 4)
MAX_US_PER_TOKEN = 1000
"""Of this client's own CPU time: a server of 500 tokens a second a stream leaves it 2,000."""
Serve = Callable[[LoadStub], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda stub: stack.enter_context(running(stub.app()))


def bench(
    capsys: pytest.CaptureFixture[str], url: str, *arguments: object
) -> tuple[int, list[dict[str, Any]], str]:
    """Status, the results and what was said of `bench serve --json`."""
    status, out, err = lostwax(capsys, "bench", "serve", "--url", url, *arguments, "--json")
    return status, json.loads(out), err


KEYS = {
    *("date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts"),
    *("request_rate", "burstiness", "max_concurrency", "duration", "completed", "failed"),
    *("total_input_tokens", "total_output_tokens", "request_throughput", "output_throughput"),
    *("total_token_throughput", "max_concurrent_requests"),
    *(
        f"{how}_{what}_ms"
        for how in ("mean", "median", "std", "p50", "p90", "p95", "p99")
        for what in ("ttft", "tpot", "itl", "e2el")
    ),
}
"""Of a result of `vllm bench serve`, with its percentiles by number."""


def test_a_result_has_the_keys_of_vllm_and_counts_by_usage(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = LoadStub(first_s=0.03, gap_s=0.01, per_chunk=2)
    url = serve(stub)
    status, (found,), err = bench(
        capsys, url, "--num-prompts", 6, "--max-concurrency", 2, *SMALL, "--ignore-eos"
    )
    assert status == 0
    assert set(found) >= KEYS
    assert (found["completed"], found["failed"], found["num_prompts"]) == (6, 0, 6)
    assert (found["total_input_tokens"], found["total_output_tokens"]) == (30, 24)
    assert (found["model_id"], found["endpoint_type"]) == ("stub", "openai")
    assert (found["request_rate"], found["max_concurrency"]) == ("inf", 2)
    assert (stub.max_in_flight, found["max_concurrent_requests"]) == (2, 2)
    assert found["p50_ttft_ms"] >= 30
    assert found["p50_itl_ms"] <= found["p50_e2el_ms"] - found["p50_ttft_ms"]
    # Chunks bring two tokens each, 10 ms apart: 3 tokens behind the first take 10 ms or more.
    assert found["p50_tpot_ms"] >= 10 / 3
    assert found["output_throughput"] == pytest.approx(24 / found["duration"])
    assert len(stub.bodies) == 4 + 6, "four warm-ups, which are not counted"
    assert stub.bodies[-1]["ignore_eos"] is True
    assert f"asking stub at {url}/v1" in err


def test_the_command_in_a_result_asks_the_same_again(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = LoadStub()
    _, (found,), _ = bench(
        capsys, serve(stub), "--num-prompts", 3, *SMALL, "--prefix-len", 2, "--warmups", 0
    )
    first, stub.bodies = stub.bodies, []
    words = shlex.split(found["command"])
    assert words[:3] == ["lostwax", "bench", "serve"]
    status, _, _ = lostwax(capsys, *words[1:])
    assert status == 0
    assert stub.bodies == first
    assert len({tuple(body["prompt"][:2]) for body in first}) == 1


def test_a_sweep_is_a_table_files_and_a_chart(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sweep"
    stub = LoadStub()
    url = serve(stub)
    sweep = ("--request-rate", "300,inf", "--max-concurrency", "1,3", "--num-prompts", 5)
    status, table, _ = lostwax(capsys, "bench", "serve", "--url", url, *sweep, *SMALL, "--out", out)
    assert status == 0
    rows = [line.split()[:4] for line in table.splitlines()[1:5]]
    assert rows == [[rate, at_once, "5", "0"] for rate in ("300", "inf") for at_once in "13"]
    names = {f"rate-{rate}-concurrency-{n}.json" for rate in ("300", "inf") for n in (1, 3)}
    assert {path.name for path in out.iterdir()} == names | {"sweep.svg"}
    kept = json.loads((out / "rate-300-concurrency-3.json").read_bytes())
    assert (kept["request_rate"], kept["max_concurrency"], kept["completed"]) == (300, 3, 5)
    assert kept["mean_wait_ms"] >= 0
    assert "requests at once" in (out / "sweep.svg").read_text()
    prompts = [tuple(body["prompt"]) for body in stub.bodies]
    assert len(set(prompts)) == len(prompts), "no load finds the prompts of another in a cache"


FAULTS = {
    "stop": "the answer broke off: peer closed connection",
    "end": "the answer broke off: the server closed the connection before [DONE]",
    "error": "the answer broke off: the engine ended",
    "busy": "status 429: the queue is full",
    "babble": "the server sent something else than expected",
    "hang": "no whole answer within 0.5 s",
    "no usage": "the stream brought no usage, so its tokens cannot be counted",
    "too many": "5 tokens of prompt and 5 of an answer of at most 4",
    "none": "5 tokens of prompt and 0 of an answer",
    "negative": "-1 tokens of prompt",
    "words": "Expected `int`, got `str`",
    "mute": "the stream brought no answer, and its usage says 4 tokens",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_requests_that_fail_are_counted_told_and_in_no_other_number(
    fault: str, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    url = serve(LoadStub(faults={2: fault, 4: fault}))
    asked = ("--num-prompts", 6, "--max-concurrency", 1, "--warmups", 0, "--timeout", 0.5, *SMALL)
    status, (found,), _ = bench(capsys, url, *asked)
    assert status == 1
    assert (found["completed"], found["failed"], found["num_prompts"]) == (4, 2, 6)
    assert found["total_output_tokens"] == 16
    (told,) = found["faults"]
    assert FAULTS[fault] in told["fault"]
    assert told["count"] == 2
    status, table, _ = lostwax(
        capsys, "bench", "serve", "--url", serve(LoadStub(faults={2: fault})), *asked
    )
    assert status == 1
    assert f"rate inf, at once 1: 1 failed: {told['fault']}" in table


def test_a_server_that_fails_the_warm_up_is_not_measured(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = LoadStub(vocab_size=8)
    status, out, err = lostwax(capsys, "bench", "serve", "--url", serve(stub), "--num-prompts", 50)
    assert (status, out) == (1, "")
    assert "before the measurement failed: status 400: an id is out of the voc" in one_sentence(err)
    assert len(stub.bodies) == 4
    status, out, err = lostwax(capsys, "bench", "serve", "--url", "http://127.0.0.1:9")
    assert "no server answers at http://127.0.0.1:9" in one_sentence(err)


def test_text_goes_to_a_chat_and_the_role_is_no_first_token(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    stub = LoadStub(first_s=0.05)
    asked = ("--endpoint", "chat", "--num-prompts", 3, *SMALL)
    status, (found,), _ = bench(capsys, serve(stub), *asked)
    assert (status, found["endpoint_type"]) == (0, "openai-chat")
    assert found["p50_ttft_ms"] >= 50
    assert found["total_input_tokens"] == 15
    assert len(stub.bodies[0]["messages"][0]["content"].split()) == 5


def test_a_duration_asks_for_as_long(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    url = serve(LoadStub(first_s=0.02))
    asked = ("--duration", 0.4, "--max-concurrency", 2, *SMALL)
    status, (found,), _ = bench(capsys, url, *asked)
    assert status == 0
    assert found["completed"] >= 2
    assert found["duration"] >= 0.4


def conversation(asked: str, answer: str = "Forty-two, says the book of it.") -> dict[str, Any]:
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
    return {"id": "x", "conversations": turns}


@pytest.mark.parametrize("name", ["talks.json", "talks.jsonl"])
def test_conversations_are_asked_in_an_order_that_the_seed_decides(
    name: str, serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    talks = [conversation(f"What is number {n} of the series?") for n in range(8)]
    talks += [conversation("short"), conversation("x" * 5000), {"conversations": []}]
    whole = "\n".join(map(json.dumps, talks)) if name.endswith("l") else json.dumps(talks)
    path.write_text(whole)
    orders: list[list[str]] = []
    for seed in (0, 0, 1):
        stub = LoadStub()
        asked = ("--dataset", path, "--num-prompts", 8, "--warmups", 0, "--max-concurrency", 1)
        status, _, err = bench(capsys, serve(stub), *asked, "--seed", seed)
        assert status == 0
        assert f"{path}: 8 prompts, 3 left out" in err
        orders.append([body["prompt"] for body in stub.bodies])
        assert {body["max_tokens"] for body in stub.bodies} == {31 // 4}
    assert orders[0] == orders[1] != orders[2]
    assert set(orders[0]) == {f"What is number {n} of the series?" for n in range(8)}


WRONG = {
    "{": "JSON",
    '{"a": 1}': "Expected `array`, got `object`",
    '[{"conversations": [{"value": 1}]}]': "`$[0].conversations[0].value`",
    '[{"turns": []}]': "missing required field `conversations`",
    "[]": "no conversation whose first two turns have 16 to 4096 bytes",
    "[" * 100_000: "give JSON such as",
    '["\\ud800"]': "give JSON such as",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_dataset_that_is_none_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "talks.json"
    path.write_text(text)
    asked = ("--url", "http://127.0.0.1:9", "--dataset", path)
    status, _, err = lostwax(capsys, "bench", "serve", *asked)
    assert status == 1
    assert WRONG[text] in one_sentence(err)


def test_a_dataset_of_too_many_bytes_is_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "talks.json"
    with path.open("wb") as file:
        file.truncate(2**30 + 1)
    asked = ("--url", "http://127.0.0.1:9", "--dataset", path)
    status, _, err = lostwax(capsys, "bench", "serve", *asked)
    assert status == 1
    assert "is no file of at most 1073741824 bytes" in one_sentence(err)


def test_the_clients_own_time_for_a_token_is_told_and_small(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    url = serve(LoadStub(gap_s=0.002))
    asked = ("--num-prompts", 8, "--max-concurrency", 4, "--input-len", 16, "--output-len", 200)
    _, (found,), _ = bench(capsys, url, *asked)
    client = found["client"]
    print(f"{client['cpu_us_per_token']:.0f} us of the client a token")
    assert 1 < client["cpu_us_per_token"] < MAX_US_PER_TOKEN
    assert client["cpu_us_per_token"] * 1600 == pytest.approx(
        client["cpu_share"] * found["duration"] * 1e6
    )


def test_more_connections_than_may_be_open_are_refused_and_the_limit_is_raised_first(
    serve: Serve,
) -> None:
    asked = [sys.executable, "-m", "lostwax", "bench", "serve", "--max-concurrency", "100"]
    asked += ["--num-prompts", "100", "--output-len", "2", "--url", serve(LoadStub(first_s=0.01))]
    for kind, wanted in (("-n", 1), ("-Sn", 0)):  # both limits, or the one that can be raised
        command = f"ulimit {kind} 130; exec {shlex.join(asked)}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == wanted, done.stderr
        refused = "takes as many connections, and this process may open 66; raise the limit"
        assert (refused in done.stderr) == (wanted == 1)


def test_ctrl_c_keeps_the_loads_that_are_finished(serve: Serve, tmp_path: Path) -> None:
    url = serve(LoadStub(first_s=0.01, faults={9: "hang"}))
    command = [sys.executable, "-m", "lostwax", "bench", "serve", "--url", url, "--warmups", "0"]
    command += ["--max-concurrency", "1,2", "--num-prompts", "8", "--out", str(tmp_path)]
    first = tmp_path / "rate-inf-concurrency-1.json"
    child = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        while not first.exists():
            assert child.poll() is None, child.stderr and child.stderr.read()
        os.kill(child.pid, signal.SIGINT)
        _, err = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == 130
    assert "Traceback" not in err
    assert f"stopped: 1 of 2 loads were finished; {tmp_path} holds them" in err
    assert json.loads(first.read_bytes())["completed"] == 8
