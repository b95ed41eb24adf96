"""Formats of answers in SGLang's `/generate`: what they hold is what the grammar library says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from grammar_engine import ORACLE, SCHEMA, constrained
from grammar_vocabulary import CODEC
from http_server import running

from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.grammar.grammar import Grammar

PROMPT = [1, 2, 3]
WAYS: dict[str, tuple[dict[str, Any], Grammar]] = {
    "a regex": ({"regex": "[a-z]{2}[0-9]"}, Grammar("regex", "[a-z]{2}[0-9]")),
    "a schema as text": ({"json_schema": SCHEMA}, Grammar("json_schema", SCHEMA)),
    "a schema as it is": ({"json_schema": json.loads(SCHEMA)}, Grammar("json_schema", SCHEMA)),
    "rules": ({"ebnf": 'root ::= "ab" | "cd 12"'}, Grammar("ebnf", 'root ::= "ab" | "cd 12"')),
    "one of two that agree": ({"regex": "a+", "ebnf": None}, Grammar("regex", "a+")),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with constrained(tmp_path_factory.mktemp("tokenizer"), 1, 2) as made:
        app = create_app(InProcessEngine(made.core), CODEC, Settings())
        with running(app) as url, httpx.Client(base_url=url, timeout=60) as client:
            yield client


def _body(**params: Any) -> dict[str, Any]:
    sampling = {"temperature": 0, "max_new_tokens": 20, **params}
    return {"input_ids": PROMPT, "sampling_params": sampling}


@pytest.mark.parametrize("name", WAYS)
def test_an_answer_follows_its_format_whole_and_streamed(client: httpx.Client, name: str) -> None:
    params, grammar = WAYS[name]
    want = ORACLE.answer(PROMPT, grammar, 20)
    answer = client.post("/generate", json=_body(**params))
    assert answer.status_code == 200, answer.text
    assert answer.json()["output_ids"] == want
    parts = client.post("/generate", json=_body(**params) | {"stream": True}).text.split("\n\n")
    last = json.loads(parts[-3].removeprefix("data: "))
    assert last["output_ids"] == want
    assert last["text"] == answer.json()["text"]


def test_all_answers_of_a_request_follow_it(client: httpx.Client) -> None:
    params = {"regex": "[a-z]{3}", "n": 2, "temperature": 1, "sampling_seed": 3}
    body = _body(**params) | {"input_ids": [[1], [2, 3]]}
    answers = client.post("/generate", json=body).json()
    assert len(answers) == 4
    for answer in answers:
        assert len(answer["text"]) == 3
        assert answer["text"].isalpha()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "params",
    [{"regex": "(a"}, {"json_schema": '{"uniqueItems": true, "type": "array"}'}, {"ebnf": "x"}],
)
def test_what_the_engine_refuses_is_a_400_of_the_parameter(
    client: httpx.Client, params: dict[str, Any], *, stream: bool
) -> None:
    answer = client.post("/generate", json=_body(**params) | {"stream": stream})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    (name,) = params
    assert (error["code"], error["param"]) == ("invalid_grammar", f"sampling_params.{name}")
    assert f"'sampling_params.{name}'" in error["message"]
