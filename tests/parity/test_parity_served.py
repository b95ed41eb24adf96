"""What `lostwax serve` answers over HTTP, gateway and engine in their own processes, is
transformers' answer: every prompt token's log-probability, and the greedy tokens.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Generator
from typing import Any

import httpx
import pytest
import torch
from harness import Build, Models
from oracle import hf_greedy, hf_logits

TOLERANCE = 1e-4
BUILD = Build("odd", 1, page_tokens=16)
LENGTHS = (150, 5, 171, 33, 64)  # more than one request has, and more than one step takes
LISTENS = re.compile(r"listening on (http://[\d.]+:\d+)")


@pytest.fixture(scope="module")
def client(models: Models) -> Generator[httpx.Client]:
    artifact = str(models.artifact(BUILD))
    checkpoint = str(models.checkpoint(BUILD.config, BUILD.seed, BUILD.format).folder)
    command = [sys.executable, "-m", "lostwax", "serve", artifact, "--checkpoint", checkpoint]
    command += ["--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            told: list[str] = []
            for line in server.stderr:  # ends with the server, should it fail
                told.append(line)
                if "is ready" in line:
                    break
            found = LISTENS.search("".join(told))
            assert found, f"the server did not start: {''.join(told)}"
            with httpx.Client(base_url=found[1], timeout=120) as client:
                yield client
        finally:
            server.send_signal(signal.SIGINT)


def prompts() -> list[list[int]]:
    return [BUILD.tokens(n, seed=30 + n) for n in LENGTHS]


def complete(client: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    answer = client.post("/v1/completions", json={"temperature": 0, **body})
    assert answer.status_code == 200, answer.text
    choices: list[dict[str, Any]] = answer.json()["choices"]
    return sorted(choices, key=lambda choice: choice["index"])


def test_echoed_log_probabilities_are_transformers(models: Models, client: httpx.Client) -> None:
    choices = complete(client, prompt=prompts(), max_tokens=0, echo=True, logprobs=20)
    wants = hf_logits(models.oracle(BUILD.config, BUILD.seed, BUILD.format), prompts())
    assert len(choices) == len(LENGTHS)
    for choice, tokens, logits in zip(choices, prompts(), wants, strict=True):
        given = choice["logprobs"]
        assert given["tokens"] == [f"token_id:{t}" for t in tokens]
        assert given["token_logprobs"][0] is None  # nothing comes before the first token
        want = logits.double().log_softmax(-1)
        for position in range(1, len(tokens)):
            row = want[position - 1]
            assert abs(given["token_logprobs"][position] - row[tokens[position]]) < TOLERANCE
            top = given["top_logprobs"][position]
            ids = [int(name.removeprefix("token_id:")) for name in top]
            assert set(torch.topk(row, 20).indices.tolist()) <= set(ids)
            errors = torch.tensor(list(top.values()), dtype=torch.float64) - row[ids]
            assert errors.abs().max() < TOLERANCE


def test_greedy_completions_are_transformers(models: Models, client: httpx.Client) -> None:
    num_new = 8
    body = {"max_tokens": num_new, "ignore_eos": True, "return_token_ids": True}
    choices = complete(client, prompt=prompts(), **body)
    oracle = models.oracle(BUILD.config, BUILD.seed, BUILD.format)
    want = [hf_greedy(oracle, tokens, num_new) for tokens in prompts()]
    assert [choice["token_ids"] for choice in choices] == want
