"""No field of a request is taken and not heeded: one at a time, for each interface."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from read_requests import what_is_read

from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.generate_models import SamplingParams
from lostwax.server.gateway.ollama_models import OllamaOptions
from lostwax.server.gateway.prepare import KINDS
from lostwax.server.gateway.prepared import Route
from lostwax.server.gateway.response_format import StructuredOutputs
from lostwax.server.grammar.grammar import MAX_BYTES

ADD = {"name": "add", "parameters": {"type": "object"}}
OBJECT = {"type": "object"}
LOGPROBS = ["message.output_text.logprobs"]
NAMED = {"type": "json_schema", "json_schema": {"name": "n", "schema": OBJECT}}
USER = {"role": "user", "content": "Hi"}
HINTS = {
    *("model", "user", "safety_identifier", "prompt_cache_key", "metadata"),
    "keep_alive",
}
"""Taken, and nothing of an answer is for them to say."""
TOLD_ANYWAY = {("responses", "stream_options")}
"""The last event always has the usage."""
NEEDS: dict[str, dict[str, Any]] = {
    "stream_options": {"stream": True},
    "chat top_logprobs": {"logprobs": True},
    "responses top_logprobs": {"include": LOGPROBS},
    "separate_reasoning": {"chat_template_kwargs": {"thinking": True}},
}
"""What must stand beside a field, of any route or of one."""
VALUES: dict[str, Any] = {
    "temperature": 0.5, "top_p": 0.5, "top_k": 5, "min_p": 0.5, "presence_penalty": 0.5,
    "frequency_penalty": 0.5, "repetition_penalty": 0.5, "logit_bias": {"1": 1.0},
    "min_tokens": 2, "seed": 3, "stop": "x", "stop_token_ids": [7], "ignore_eos": True,
    "return_token_ids": True, "n": 2, "stream": True, "stream_options": {"include_usage": True},
    "response_format": NAMED, "structured_outputs": {"regex": "a"}, "guided_regex": "a",
    "guided_json": OBJECT, "json_schema": OBJECT, "guided_choice": ["a", "b"],
    "guided_grammar": "start: /a/", "regex": "a", "ebnf": 'root ::= "a"', "prompt": "other",
    "messages": [{"role": "user", "content": "Ho"}], "input": "Ho", "instructions": "Be terse.",
    "max_tokens": 9, "max_completion_tokens": 9, "max_output_tokens": 9, "echo": True,
    "logprobs": True, "top_logprobs": 3, "chat_template_kwargs": {"thinking": True},
    "parallel_tool_calls": False, "separate_reasoning": False, "continue_final_message": True,
    "add_generation_prompt": False, "tool_choice": "none", "reasoning": {"effort": "high"},
    "text": {"format": {"type": "json_object"}}, "system": "Be terse.", "functions": [ADD],
    "thinking": {"type": "enabled"}, "stop_sequences": ["x"],
    "sampling_params": {"temperature": 0.5}, "max_new_tokens": 9, "min_new_tokens": 2,
    "sampling_seed": 3,
    "output_config": {"effort": "low"}, "include": LOGPROBS,
    "think": True, "format": "json",
    "options": {"temperature": 0.5}, "num_ctx": 4097, "num_predict": 9, "repeat_penalty": 0.5,
}  # fmt: skip
OF_STRUCTURED: dict[str, Any] = {
    "json": OBJECT, "regex": "a", "choice": ["a"], "grammar": "start: /a/", "json_object": True,
}  # fmt: skip
OF_ROUTE: dict[str, dict[str, Any]] = {
    "completions": {"logprobs": 3},
    "messages": {"tool_choice": {"type": "none"}, "tools": [{"name": "add"}]},
    "responses": {"tools": [{"type": "function", **ADD}]},
    "chat": {"tools": [{"type": "function", "function": ADD}]},
    "generate": {"text": "other", "input_ids": [5, 6]},
    "ollama": {"tools": [{"function": ADD}], "stream": False},
}
BODIES: dict[str, dict[str, Any]] = {
    "completions": {"prompt": "Hi", "max_tokens": 8},
    "chat": {"messages": [USER]},
    "responses": {"input": "Hi"},
    "messages": {"messages": [USER], "max_tokens": 8},
    "generate": {"text": "Hi"},
    "ollama": {"messages": [USER]},
}
FIELDS = [
    (route, field.encode_name, field.type)
    for route, kind in KINDS.items()
    for field in msgspec.structs.fields(kind)
]


def _check(route: str, name: str, body: dict[str, Any], other: dict[str, Any]) -> None:
    before, after = what_is_read(route, body), what_is_read(route, other)
    assert not isinstance(before, ApiError), before.message
    if isinstance(after, ApiError):
        assert after.status == 400
        assert (after.param or "").split(".")[0] in other, after.message
        assert name in (after.param or "") + after.message
    else:
        assert after != before, f"{route} takes {name} and does nothing"


def _is_not_honoured(kind: Any) -> bool:
    extra = getattr(msgspec.inspect.type_info(kind), "extra", None)
    return bool(extra and "neutral" in extra)


@pytest.mark.parametrize(("route", "name", "kind"), FIELDS, ids=lambda each: str(each)[:24])
def test_a_field_changes_the_request_or_is_refused(route: Route, name: str, kind: Any) -> None:
    own = OF_ROUTE[route]
    if name in HINTS or (route, name) in TOLD_ANYWAY:
        return
    is_refused = _is_not_honoured(kind)
    needs = NEEDS.get(name, {}) | NEEDS.get(f"{route} {name}", {})
    body = BODIES[route] | ({} if is_refused else needs)
    if name in ("tool_choice", "parallel_tool_calls"):
        body |= {"tools": own["tools"]}
    value = ["?"] if is_refused else (VALUES | own)[name]
    _check(route, name, body, body | {name: value})


@pytest.mark.parametrize("field", msgspec.structs.fields(SamplingParams), ids=lambda f: f.name)
def test_so_does_each_of_sampling_params(field: Any) -> None:
    value = ["?"] if _is_not_honoured(field.type) else VALUES[field.encode_name]
    body = BODIES["generate"]
    _check("generate", field.name, body, body | {"sampling_params": {field.encode_name: value}})


@pytest.mark.parametrize("field", msgspec.structs.fields(OllamaOptions), ids=lambda f: f.name)
def test_so_does_each_of_options(field: Any) -> None:
    value = ["?"] if _is_not_honoured(field.type) else VALUES[field.encode_name]
    body = BODIES["ollama"]
    _check("ollama", field.name, body, body | {"options": {field.encode_name: value}})


@pytest.mark.parametrize("route", ["completions", "chat", "responses"])
@pytest.mark.parametrize("field", msgspec.structs.fields(StructuredOutputs), ids=lambda f: f.name)
def test_so_does_each_of_structured_outputs(route: Route, field: Any) -> None:
    value = ["?"] if _is_not_honoured(field.type) else OF_STRUCTURED[field.encode_name]
    body = BODIES[route]
    _check(route, field.name, body, body | {"structured_outputs": {field.encode_name: value}})


FORM = {"type": "json_schema", "name": "n", "schema": OBJECT}


@pytest.mark.parametrize(
    ("form", "path"),
    [(FORM, "text.format.schema"), ({"type": "json_object"}, "text.format")],
)
def test_the_form_of_a_response_keeps_its_name(form: dict[str, Any], path: str) -> None:
    text = {"text": {"format": form}}
    found = what_is_read("responses", {"input": "Hi"} | text)
    assert not isinstance(found, ApiError)
    assert found["options"]["format_param"] == path  # what errors of the engine name
    refused = [
        ({"guided_regex": "a"}, "guided_regex"),
        ({"ignore_eos": True}, "ignore_eos"),
    ]
    for more, param in refused:
        error = what_is_read("responses", {"input": "Hi"} | text | more)
        assert isinstance(error, ApiError)
        assert error.param == param
        assert "response_format" not in error.message
    tools = {"tools": OF_ROUTE["responses"]["tools"]}
    assert not isinstance(what_is_read("responses", {"input": "Hi"} | text | tools), ApiError)


@pytest.mark.parametrize("form", ["json", OBJECT])
def test_the_format_of_ollama_keeps_its_name(form: Any) -> None:
    found = what_is_read("ollama", BODIES["ollama"] | {"format": form})
    assert not isinstance(found, ApiError)
    assert found["options"]["format_param"] == "format"


def test_a_schema_of_a_response_that_is_too_large_is_named() -> None:
    schema = {"type": "object", "description": "x" * MAX_BYTES}
    error = what_is_read(
        "responses", {"input": "Hi", "text": {"format": FORM | {"schema": schema}}}
    )
    assert isinstance(error, ApiError)
    assert error.param == "text.format.schema"
    assert "'text.format.schema'" in error.message
