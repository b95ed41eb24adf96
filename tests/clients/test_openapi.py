"""Schemathesis against the gateway: `/openapi.json` is true, and no request is a server's error.

A scripted runtime answers, so that requests reach the engine and streams end. What no schema can
say is in `REASONS`: only such a refusal of a request that fits its schema is right. Integers that
JSON writes as 4.0 are integers of JSON Schema and not the gateway's: they are not sent.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import pytest
from http_server import running
from hypothesis import HealthCheck, given, settings, strategies
from scripted_runtime import CODEC, VOCAB, ScriptedRuntime, spelt

from lostwax.ir.contract.artifact import SCHEMA as SCHEMA_NUMBER
from lostwax.server.engine.loop import EngineCore
from lostwax.server.gateway.api_keys import digests_of
from lostwax.server.gateway.app import create_app
from lostwax.server.gateway.chat_models import MAX_MESSAGES
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.response_format import FormatFields
from lostwax.server.gateway.settings import Build, Settings

schemathesis = pytest.importorskip(
    "schemathesis", reason="schemathesis is not installed: it comes with `.ci/slow clients`"
)

SETTINGS: dict[str, Any] = {
    "derandomize": True,
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
}
KEY = "a-key-of-the-tests"
BUILD = Build(schema=SCHEMA_NUMBER, digest="0" * 64, target="cpu")
OF_ROLE = {
    "assistant": {"reasoning_content", "reasoning", "thinking"},
    "tool": {"tool_call_id", "tool_name"},
    "system": {"tools", "response_format"},
    "developer": {"tools", "response_format"},
}
REASONS = (
    r"this model's maximum context length is \d+ tokens",
    r"the prompts hold more than \d+ tokens together",
    r"'prompt' holds \d+ ",
    r"'tokens' holds \d+ ids and a context",
    r"'return_token_strs' takes at most",
    r"'messages': prompt stands beside it",
    r"'prompt': a text belongs here, or messages in its place",
    r"'(chat_template_kwargs|add_special_tokens|tools)': it goes with (messages|prompt)",
    r"'best_of': only 1( or \d+)? is supported",
    r"'[\w.]+': chat_template_kwargs say the opposite",
    r"'[\w.\[\]]+': \w+ is another name of it and says otherwise",
    r"'functions': chats do not take it",
    r"'(text|input_ids)': ",
    r"'[\w.\[\]]+': (no quote, line break|strict arguments need)",
    r"'[\w.\[\]]+': (a schema has at most|it is deeper than|arguments are an object)",
    r"'tools': (two tools have the name|tools hold more than)",
    r"'tool_choice': (no tool has the name|there is no tool to call|a call that must come)",
    r"'tool_choice.name': it goes with type 'tool'",
    r"'input\[\d+\]\.\w+': a \w+ (needs it|has none)",
    r"'messages\[\d+\]\.content': a \w+ message has no ",
    r"'(input|messages)': (two calls|two results|a turn has|a result is of|call .* has no result)",
    r"a developer message has no content",
    r"'top_logprobs': it needs include",
    r"'options.num_ctx': this model's maximum context length",
    r"token id \d+ lies outside 0\.\.\d+",
    r"\d+ tokens at least are more than \d+ at most",
    r"\d+ answers to each of \d+ prompts are more than \d+",
    r"\d+ biases for each answer are more than \d+ together",
)
"""What no schema of a request says: bounds of the model, and fields that exclude each other."""


def _app() -> Any:
    runtime = ScriptedRuntime(script=spelt("Yes. <b>"))
    settings = Settings(metrics=True, build=BUILD, key_digests=digests_of([KEY]))
    return create_app(InProcessEngine(EngineCore(runtime)), CODEC, settings)


def _schema() -> Any:
    schema = schemathesis.openapi.from_dict(_app().openapi())
    # 400 is held to REASONS, 404 is another model's name.
    schema.config.checks.positive_data_acceptance.expected_statuses = ["2xx", "400", "404"]
    return schema


SCHEMA = _schema()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running(_app()) as url:
        yield url


@pytest.fixture(scope="module")
def statuses() -> Counter[tuple[str, int]]:
    """How often each route gave each status to what fits its schema."""
    return Counter()


def _whole(value: Any) -> Any:
    """The value with numbers such as 4.0, which JSON Schema takes for integers, as integers.
    Schemathesis compares bounds as doubles: what these do not hold exactly is 0."""
    if isinstance(value, int | float) and abs(value) >= 2**53:
        return 0
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(each) for each in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in cast("dict[str, Any]", value).items()}
    return value


def _sensible(body: dict[str, Any]) -> dict[str, Any]:
    """The body with what goes together, so that most requests reach the engine."""
    made = _whole(body)
    made.pop("model", None)  # any other name than the served one is a 404
    if made.get("stream_options") is not None:
        made["stream"] = True
    if made.get("top_logprobs") and "messages" in made:
        made["logprobs"] = True
    for name in ("continue_final_message", "add_generation_prompt"):
        made.pop(name, None)  # the last message is a question
    made = _unforced(made)
    if made.get("tools"):
        made["tools"] = [_callable(number, tool) for number, tool in enumerate(made["tools"])]
    if "input" in made:
        made["input"] = "So?"
    elif {"text", "input_ids", "sampling_params"} & made.keys():
        made = _one_prompt(made)
    if made.get("messages"):
        last = {"role": "user", "content": "So?"}
        made["messages"] = [*map(_of_role, made["messages"][: MAX_MESSAGES - 1]), last]
    return made | {name: _known(made[name]) for name in ("prompt", "tokens") if name in made}


def _callable(number: int, tool: dict[str, Any]) -> dict[str, Any]:
    """A tool with a name of its own and a schema that is one."""
    if "function" in tool:
        return tool | {"function": _callable(number, tool["function"])}
    named = tool | {"name": f"tool{number}"}
    schema = {name: {"type": "object"} for name in ("parameters", "input_schema") if name in tool}
    return named | schema | ({"strict": False} if "strict" in tool else {})


def _unforced(body: dict[str, Any]) -> dict[str, Any]:
    """The body without what asks for a grammar, which the runtime of this test does not follow."""
    names = {*FormatFields.__struct_fields__, *(["text"] if "input" in body else [])}
    names.add("format")
    choice = body.get("tool_choice")
    kind = cast("dict[str, Any]", choice).get("type") if isinstance(choice, dict) else choice
    if kind not in (None, "auto", "none"):
        names.add("tool_choice")
    left = {name: value for name, value in body.items() if name not in names}
    if isinstance(params := left.get("sampling_params"), dict):
        left["sampling_params"] = _unforced(cast("dict[str, Any]", params))
    return left


def _one_prompt(body: dict[str, Any]) -> dict[str, Any]:
    """A text or ids: one of them, and one there is."""
    if body.get("input_ids") is not None:
        return body | {"text": None, "input_ids": _known(body["input_ids"])}
    return body | {"text": body["text"] if isinstance(body.get("text"), str) else "So"}


def _of_role(message: dict[str, Any]) -> dict[str, Any]:
    """A message with what its role may have; results of no call become questions."""
    role = "user" if message["role"] == "tool" else message["role"]
    of_others = {"tool_calls"}.union(*OF_ROLE.values()) - OF_ROLE.get(role, set())
    kept = {name: value for name, value in message.items() if name not in of_others}
    if kept.get("tools"):
        kept["tools"] = [_callable(number, tool) for number, tool in enumerate(kept["tools"])]
    content = message.get("content")
    is_text = isinstance(content, str) or all(part["type"] == "text" for part in content or ())
    return kept | {"role": role, "content": (is_text and content) or "Well."}


def _known(value: Any) -> Any:
    """The same ids within the vocabulary, in lists of lists, too."""
    if isinstance(value, list):
        return [_known(each) for each in cast("list[Any]", value)]
    return value % VOCAB if isinstance(value, int) else value


def _try(case: Any, url: str) -> int | None:
    """The status of an answer that conforms; None for a request that was made to be wrong."""
    is_positive = case.meta.generation.mode.is_positive
    if is_positive and isinstance(case.body, dict):
        case.body = _sensible(case.body)
    response = case.call_and_validate(base_url=url, headers={"Authorization": f"Bearer {KEY}"})
    assert response.status_code < 500
    assert b"event: error" not in response.content
    if not is_positive:
        return None
    if response.status_code == 400:
        error = response.json()["error"]
        message = error if isinstance(error, str) else error["message"]
        assert any(re.match(reason, message) for reason in REASONS), message
    return response.status_code


@pytest.mark.parametrize("path", list(SCHEMA))
@given(data=strategies.data())
@settings(max_examples=6, **SETTINGS)
def test_some_answers_are_as_described(path: str, url: str, data: strategies.DataObject) -> None:
    (operation,) = SCHEMA[path].values()
    takes_something = operation.body or operation.path_parameters
    modes = list(schemathesis.GenerationMode)[: None if takes_something else 1]
    mode = data.draw(strategies.sampled_from(modes))
    _try(data.draw(operation.as_strategy(generation_mode=mode)), url)


@pytest.mark.clients
@SCHEMA.parametrize()
@settings(max_examples=300, **SETTINGS)
def test_every_answer_is_as_described(
    case: Any, url: str, statuses: Counter[tuple[str, int]]
) -> None:
    status = _try(case, url)
    if status is not None:
        statuses[case.operation.path, status] += 1


@pytest.mark.clients
def test_most_requests_that_fit_their_schema_are_served(statuses: Counter[tuple[str, int]]) -> None:
    """Of the test above: else it would have shown refusals only. In one process (-n 0): for xdist
    all routes of that test have one name, and it runs one of them."""
    routes = {path for path, _ in statuses}
    assert len(routes) == len(_app().openapi()["paths"])
    for path in routes - {"/v1/models/{wanted}"}:
        of_path = {status: n for (other, status), n in statuses.items() if other == path}
        assert of_path[200] > 0.5 * sum(of_path.values()), (path, of_path)
