"""Gateway and engine as two processes: same answers, and an end that every client is told of."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

import openai
import pytest
from fake_runtime import generate
from fastapi import FastAPI
from supervised_server import ENGINE, supervised

from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.draining import Draining
from lostwax.server.gateway.engine_client import EngineClient
from lostwax.server.gateway.serve import ServeError, serve_engine
from lostwax.server.gateway.tokenizer import IdCodec

PROMPT = [3, 1, 4, 1, 5]
BODY = {"prompt": PROMPT, "temperature": 0, "ignore_eos": True, "return_token_ids": True}


def _application(engine: EngineClient, draining: Draining) -> FastAPI:
    return create_app(engine, IdCodec(), Settings(), draining=draining)


def test_two_processes_answer_like_one() -> None:
    with supervised() as (_, _, client):
        prompts = [[n] * (n + 1) for n in range(6)]
        body = BODY | {"prompt": prompts, "max_tokens": 5}
        answer = client.post("/v1/completions", json=body).json()
        expected = [generate(prompt, 5) for prompt in prompts]
        assert [choice["token_ids"] for choice in answer["choices"]] == expected


def test_killing_the_engine_mid_stream_is_an_error_event_and_a_new_engine() -> None:
    with supervised(step_s=0.05) as (engine, readiness, client):
        body = BODY | {"max_tokens": 50, "stream": True}
        with client.stream("POST", "/v1/completions", json=body) as answer:
            lines = (line for line in answer.iter_lines() if line)
            first = json.loads(next(lines).removeprefix("data: "))
            assert first["choices"][0]["token_ids"] == generate(PROMPT, 1)
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
            killed = time.monotonic()
            rest = list(lines)
        assert time.monotonic() - killed < 2
        assert rest[-2] == "event: error"
        error = json.loads(rest[-1].removeprefix("data: "))["error"]
        assert error["code"] == "engine_unavailable"
        assert "data: [DONE]" not in rest
        readiness.wait()
        assert client.get("/ready").status_code == 200
        again = client.post("/v1/completions", json=BODY | {"max_tokens": 4}).json()
        assert again["choices"][0]["token_ids"] == generate(PROMPT, 4)


def test_the_openai_client_raises_when_the_engine_dies_or_falls_silent() -> None:
    with supervised(step_s=0.05, silence_s=1.0) as (engine, readiness, http):
        client = openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="none", max_retries=0)
        for end in (signal.SIGKILL, signal.SIGSTOP):
            stream = client.completions.create(
                model="fake", prompt=PROMPT, max_tokens=50, stream=True
            )
            next(stream)
            assert engine.pid is not None
            os.kill(engine.pid, end)
            with pytest.raises(openai.APIError, match="the engine"):
                list(stream)
            refused = http.get("/ready")
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            readiness.wait()


def test_stopping_the_server_ends_an_engine_that_does_not_answer() -> None:
    with supervised() as (engine, _, _):
        pid = engine.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_long_step_is_not_silence() -> None:
    with supervised(step_s=1.2, silence_s=0.9) as (_, _, client):
        answer = client.post("/v1/completions", json=BODY | {"max_tokens": 2}).json()
        assert answer["choices"][0]["token_ids"] == generate(PROMPT, 2)


def test_an_engine_ends_with_its_gateway() -> None:
    code = (
        "import sys; from lostwax.server.gateway.serve import serve_engine as s;"
        "from lostwax.server.gateway.app import Settings as S, create_app;"
        "from lostwax.server.gateway.tokenizer import IdCodec as I;"
        "c = lambda link: [sys.executable, sys.argv[1], link.address, str(link.parent)];"
        "s(c, lambda e, d: create_app(e, I(), S(), draining=d), host='127.0.0.1', port=0)"
    )
    # A folder of its own, and a short one: a killed gateway cannot remove its socket.
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, "-c", code, str(ENGINE)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": folder},
        ) as gateway,
    ):
        assert gateway.stderr is not None
        assert "listening on http://127.0.0.1:" in gateway.stderr.readline()
        assert "fake is ready" in gateway.stderr.readline()
        gateway.kill()
        # The engine holds the other end of this pipe: it closes when the engine is gone, too.
        assert gateway.stderr.read() == ""


def test_an_engine_that_cannot_start_ends_the_server_with_its_reason() -> None:
    broken = "from lostwax.server.engine.process import run_engine; import sys; "
    broken += "run_engine(lambda _: 1 // 0, sys.argv[1])"
    with pytest.raises(ServeError, match="did not start: ZeroDivisionError"):
        serve_engine(
            lambda link: [sys.executable, "-c", broken, link.address],
            _application,
            host="127.0.0.1",
            port=0,
            announce=lambda _: None,
        )


def test_a_taken_port_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"cannot listen on 127.0.0.1:{port}.*--port"):
            serve_engine(lambda _: [], _application, host="127.0.0.1", port=port)


def test_a_public_host_is_refused() -> None:
    with pytest.raises(ServeError, match="no API key is asked for"):
        serve_engine(lambda _: [], _application, host="0.0.0.0", port=0)


def test_the_gateway_imports_neither_torch_nor_a_compiler() -> None:
    code = (
        "import sys, lostwax.server.gateway.serve, lostwax.server.gateway.in_process;"
        "print(sorted({'torch', 'xdsl', 'onnx', 'triton', 'pickle5'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
