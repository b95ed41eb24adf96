"""Formats of answers over HTTP, from the trained tiny model: right JSON, and clear refusals."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from grammar_processes import process_of
from http_server import running
from jsonschema import Draft202012Validator
from pydantic import BaseModel
from trained_fixtures import TRAINED

from lostwax.backends.runtime.load import load
from lostwax.ir.contract.masks import num_masks
from lostwax.server.engine.loop import EngineCore
from lostwax.server.engine.messages import Failed, Output, Submit
from lostwax.server.engine.options import EngineOptions
from lostwax.server.formats.encoding_v32 import EOS, THINK_END, encode_pieces
from lostwax.server.gateway.app import Settings, create_app
from lostwax.server.gateway.in_process import InProcessEngine
from lostwax.server.gateway.tokenizer import Codec
from lostwax.server.gateway.tokenizer_file import load_codec
from lostwax.server.grammar.grammar import Grammar
from lostwax.server.grammar.grammars import Grammars

TASKS = TRAINED.parent / "tasks"


@dataclass(frozen=True)
class _Model:
    """The trained model, what follows its grammars, and its tokenizer."""

    runtime: Any
    grammars: Grammars
    codec: Codec

    def core(self, drafts: int = 0, depth: int = 1) -> EngineCore:
        options = EngineOptions(max_drafts=drafts)
        return EngineCore(self.runtime, options, depth=depth, grammars=self.grammars)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Model]:
    from lostwax.cli.compile import compile_checkpoint

    folder = tmp_path_factory.mktemp("drafting") / "artifact"
    compile_checkpoint(
        TRAINED, folder, target="cpu", dtype="fp32", max_context=1024, max_tokens=256, max_reqs=8,
        drafts=2,
    )  # fmt: skip
    runtime = load(folder, checkpoint=TRAINED, threads=1)
    limits = runtime.limits
    most = num_masks(limits.max_reqs, limits.max_drafts)
    eos = runtime.facts.eos_token_ids[0]
    grammars = Grammars([folder], limits.vocab_size, eos, most, hang_s=10)
    yield _Model(runtime, grammars, load_codec(folder))
    grammars.stop()


@pytest.fixture(scope="module")
def client(model: _Model) -> Iterator[openai.OpenAI]:
    app = create_app(InProcessEngine(model.core(2)), model.codec, Settings(model="tiny"))
    with running(app) as url:
        yield openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def _ask(client: openai.OpenAI, content: str, **asked: Any) -> Any:
    given: dict[str, Any] = {"model": "tiny", "temperature": 0, "max_tokens": 300, **asked}
    messages: Any = [{"role": "user", "content": content}]
    return client.chat.completions.create(messages=messages, **given)


class Sum(BaseModel):
    """What a client wants to have parsed."""

    answer: int
    unit: Literal["apples", "pears"]
    why: list[bool]


FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "sum", "schema": Sum.model_json_schema(), "strict": True},
}
SUM = "What is 17 + 25?"


def test_the_openai_client_parses_an_answer(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": SUM}]
    answer = client.chat.completions.parse(
        model="tiny", messages=messages, response_format=Sum, temperature=0, max_tokens=300
    )
    assert isinstance(answer.choices[0].message.parsed, Sum)
    assert answer.choices[0].finish_reason == "stop"


def test_a_stream_is_the_whole_answer(client: openai.OpenAI) -> None:
    whole = _ask(client, SUM, response_format=FORMAT)
    parts = list(_ask(client, SUM, response_format=FORMAT, stream=True))
    said = "".join(part.choices[0].delta.content or "" for part in parts)
    assert said == whole.choices[0].message.content
    Sum.model_validate_json(said)


def test_reasoning_is_free_and_what_follows_is_not(client: openai.OpenAI) -> None:
    extra = {"chat_template_kwargs": {"thinking": True}}
    answer = _ask(client, SUM, response_format=FORMAT, extra_body=extra, max_tokens=400)
    free = _ask(client, SUM, extra_body=extra, max_tokens=400)
    message = answer.choices[0].message
    assert message.reasoning_content == free.choices[0].message.reasoning_content
    assert answer.choices[0].finish_reason == "stop"
    Sum.model_validate_json(message.content)


@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        ({"guided_choice": ["Zürich", "Bern"]}, "Zürich|Bern"),
        ({"guided_regex": r"\d{4}-\d{2}"}, r"\d{4}-\d{2}"),
        ({"structured_outputs": {"grammar": 'start: "a" | "b" start'}}, "b*a"),
        ({"ebnf": 'root ::= "<" [x-z]{2,4} ">"'}, "<[x-z]{2,4}>"),
    ],
)
def test_other_servers_spellings_hold_in_chats_and_completions(
    client: openai.OpenAI, given: dict[str, Any], pattern: str
) -> None:
    answer = _ask(client, SUM, extra_body=given, n=2, temperature=1, seed=3)
    text = client.completions.create(model="tiny", prompt=SUM, max_tokens=60, extra_body=given)
    said = [choice.message.content for choice in answer.choices] + [text.choices[0].text]
    assert all(re.fullmatch(pattern, each) for each in said), said
    assert {choice.finish_reason for choice in (*answer.choices, *text.choices)} == {"stop"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_grammar_that_cannot_be_followed_is_a_400_that_names_it(
    client: openai.OpenAI, stream: bool
) -> None:
    for given, param, why in (
        ({"guided_regex": "("}, "guided_regex", "unclosed group"),
        ({"guided_json": {"type": "nothing"}}, "guided_json", "nothing"),
        ({"guided_regex": "(a{1000}){1000}"}, "guided_regex", "ms a token|within 2 s"),
    ):
        with pytest.raises(openai.BadRequestError, match=why) as refused:
            _ask(client, SUM, stream=stream, extra_body=given)
        assert (refused.value.code, refused.value.param) == ("invalid_grammar", param)


def test_an_answer_whose_process_is_killed_ends_with_an_error_and_others_go_on(
    client: openai.OpenAI, model: _Model
) -> None:
    endless = {"guided_regex": "[a-z]{300}"}
    grammar = Grammar("regex", "[a-z]{300}")
    other = list[str]()

    def count() -> None:
        answer = _ask(client, SUM, extra_body={"guided_regex": "[0-9]{100}"})
        other.append(answer.choices[0].message.content)

    beside = threading.Thread(target=count)
    beside.start()
    stream = _ask(client, SUM, stream=True, extra_body=endless)
    next(stream)
    os.kill(process_of(model.grammars, grammar), signal.SIGKILL)
    with pytest.raises(openai.APIError, match="the process that follows its grammar was ended"):
        list(stream)
    beside.join()
    assert re.fullmatch("[0-9]{100}", other[0])
    again = _ask(client, SUM, extra_body=endless)
    assert re.fullmatch("[a-z]{300}", again.choices[0].message.content)


def _tasks(count: int) -> list[tuple[str, dict[str, Any]]]:
    """Questions with the schema of their answer: those that the model was trained for, and others
    whose answers are no JSON at all."""
    read = [json.loads(line) for line in (TASKS / "json.jsonl").read_text().splitlines()]
    asked = [
        (task["messages"][-1]["content"], _bound(task["reference"]["schema"])) for task in read
    ]
    for name in ("arithmetic", "chat", "tools", "dates_units"):
        for line, (_, schema) in zip(
            (TASKS / f"{name}.jsonl").read_text().splitlines(), asked, strict=False
        ):
            if len(asked) < count:
                asked.append((json.loads(line)["messages"][-1]["content"] or "?", schema))
    return asked[:count]


def _bound(schema: Any) -> Any:
    """The same with no properties but those that it names, as OpenAI's strict schemas are, and with
    short texts and lists: where this model knows no answer it repeats itself for ever."""
    if isinstance(schema, list):
        return [_bound(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kind: Any = schema.get("type")
    bounds: dict[Any, dict[str, Any]] = {
        "object": {"additionalProperties": False},
        "string": {} if "enum" in schema else {"maxLength": 40},
        "array": {"maxItems": 6},
        "integer": {"minimum": -(10**6), "maximum": 10**6},
        "number": {"minimum": -(10**6), "maximum": 10**6},
    }
    found = bounds.get(kind, {}) if isinstance(kind, str) else {}
    return {key: _bound(value) for key, value in schema.items()} | found


def _is_valid(text: str, schema: dict[str, Any]) -> bool:
    try:
        return Draft202012Validator(schema).is_valid(json.loads(text))
    except ValueError:
        return False


def _check_all(client: openai.OpenAI, count: int) -> None:
    tasks = _tasks(count)
    assert len(tasks) == count

    def ask(task: tuple[str, dict[str, Any]]) -> tuple[str, str, str]:
        content, schema = task
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        choice = _ask(client, content, response_format=form).choices[0]
        free = _ask(client, content).choices[0].message.content or ""
        return choice.message.content, choice.finish_reason, free

    with ThreadPoolExecutor(8) as threads:
        said = list(threads.map(ask, tasks))
    ended = [
        (text, task[1]) for (text, why, _), task in zip(said, tasks, strict=True) if why == "stop"
    ]
    for text, schema in ended:
        assert _is_valid(text, schema), (text, schema)
    num_wrong = sum(
        not _is_valid(free, task[1]) for (*_, free), task in zip(said, tasks, strict=True)
    )
    print(f"{len(ended)} of {count} ended, all valid; {num_wrong} were invalid without a format")
    assert len(ended) >= 0.98 * count, [text for text, why, _ in said if why != "stop"]
    assert num_wrong > count // 4, "the format changed nothing"


def test_every_answer_that_ends_is_valid(client: openai.OpenAI) -> None:
    _check_all(client, 8)


@pytest.mark.slow
def test_every_answer_of_200_that_ends_is_valid(client: openai.OpenAI) -> None:
    _check_all(client, 200)


def _answers(model: _Model, drafts: int, prompts: list[list[int]], grammars: list[Any]) -> Any:
    """Token ids of answers that run together, and how many drafts were accepted."""
    core, found = model.core(drafts), dict[str, list[int]]()
    for i, prompt in enumerate(prompts):
        after = model.codec.marks[THINK_END] if i % 3 == 2 else None
        core.handle(
            Submit(
                request=f"{i}", prompt=prompt, max_tokens=120, grammar=grammars[i],
                grammar_after=after if grammars[i] else None, temperature=0.7 * (i % 2), seed=i,
            )
        )  # fmt: skip
    while core.has_work:
        for event in core.step():
            assert isinstance(event, Output), event
            assert not isinstance(event, Failed)
            found.setdefault(event.request, []).extend(each.token for each in event.tokens)
    return found, core.drafting.num_accepted


@pytest.mark.parametrize("count", [8, pytest.param(60, marks=pytest.mark.slow)])
def test_answers_with_drafts_are_those_of_the_grammar_alone(model: _Model, count: int) -> None:
    prompts = list[list[int]]()
    grammars = list[Grammar | None]()
    for i, (content, schema) in enumerate(_tasks(count)):
        mode: Any = "thinking" if i % 3 == 2 else "chat"
        pieces = encode_pieces([{"role": "user", "content": content}], mode)
        prompts.append(model.codec.encode_pieces(pieces))
        grammars.append(Grammar("json_schema", json.dumps(schema)) if i % 4 else None)
    want, none = _answers(model, 0, prompts, grammars)
    found, accepted = _answers(model, 2, prompts, grammars)
    assert found == want
    assert (none, accepted > count) == (0, True), accepted
    eos = model.codec.marks[EOS]
    for i, grammar in enumerate(grammars):
        ids = found[f"{i}"]
        if grammar is not None and ids[-1] == eos:
            text = model.codec.decode(ids).rpartition(THINK_END)[2]
            assert _is_valid(text, json.loads(grammar.text)), text


def test_the_example_of_the_page_prints_what_it_asked_for(
    client: openai.OpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "structured-output.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code = code.replace("http://127.0.0.1:8000/v1", str(client.base_url))
    # Without this file's annotations that are text, which pydantic would look up here.
    exec(compile(code, "page", "exec", dont_inherit=True), {"__name__": "example"})
    assert re.fullmatch(r"result=-?\d+ unit='(apples|pears)'\n", capsys.readouterr().out)


def _tool(name: str, **properties: Any) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    function = {"name": name, "description": f"{name}s.", "parameters": schema, "strict": True}
    return {"type": "function", "function": function}


ADD = _tool("add", a={"type": "integer"}, b={"type": "integer"})
FIND = _tool("find", city={"enum": ["Bern", "Zürich"]}, near={"type": "boolean"})
TOOLS: list[Any] = [ADD, FIND]


def _require_held(calls: Any) -> None:
    """Each call is of a tool, and its arguments are as the tool's schema says."""
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    assert calls
    for call in calls:
        Draft202012Validator(schemas[call.function.name]).validate(
            json.loads(call.function.arguments)
        )


@pytest.mark.parametrize("content", [SUM, "Hello!", "Write a story about a fox."])
@pytest.mark.parametrize("thinking", [False, True])
def test_a_call_that_must_come_comes(client: openai.OpenAI, content: str, thinking: bool) -> None:
    extra = {"chat_template_kwargs": {"thinking": thinking}}
    asked = {"tools": TOOLS, "tool_choice": "required", "extra_body": extra, "max_tokens": 500}
    (choice,) = _ask(client, content, parallel_tool_calls=False, **asked).choices
    assert choice.finish_reason == "tool_calls"
    assert len(choice.message.tool_calls) == 1
    _require_held(choice.message.tool_calls)


@pytest.mark.parametrize("name", ["add", "find"])
def test_a_named_tool_is_called_in_streams_as_in_whole_answers(
    client: openai.OpenAI, name: str
) -> None:
    choice = {"type": "function", "function": {"name": name}}
    whole = _ask(client, SUM, tools=TOOLS, tool_choice=choice).choices[0].message.tool_calls
    assert [call.function.name for call in whole] == [name]
    _require_held(whole)
    parts = list(_ask(client, SUM, tools=TOOLS, tool_choice=choice, stream=True))
    deltas = [call for part in parts for call in part.choices[0].delta.tool_calls or ()]
    assert "".join(d.function.arguments or "" for d in deltas) == whole[0].function.arguments
    assert parts[-1].choices[0].finish_reason == "tool_calls"


def test_strict_tools_leave_the_model_its_choice(client: openai.OpenAI) -> None:
    (choice,) = _ask(client, "Hello!", tools=TOOLS, max_tokens=200).choices
    free = _ask(client, "Hello!", tools=[], max_tokens=200).choices[0].message.content
    if choice.finish_reason == "tool_calls":
        _require_held(choice.message.tool_calls)
    else:
        assert choice.message.content
        assert free


@pytest.mark.parametrize("content", [SUM, "Hello!", "Write a story about a fox."])
def test_with_a_format_beside_tools_the_answer_is_calls_or_of_that(
    client: openai.OpenAI, content: str
) -> None:
    (choice,) = _ask(client, content, tools=TOOLS, response_format=FORMAT).choices
    if choice.finish_reason == "tool_calls":
        _require_held(choice.message.tool_calls)
        assert not choice.message.content
    else:
        Sum.model_validate_json(choice.message.content)


def test_a_call_that_must_come_leaves_a_format_nothing(client: openai.OpenAI) -> None:
    (choice,) = _ask(
        client, SUM, tools=TOOLS, tool_choice="required", response_format=FORMAT
    ).choices
    _require_held(choice.message.tool_calls)


def test_no_other_form_than_json_stands_beside_tools(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="JSON of a schema") as found:
        _ask(client, SUM, tools=TOOLS, extra_body={"regex": "a+"})
    assert found.value.param == "regex"


def test_responses_take_formats_and_calls_that_must_come(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(
        model="tiny", input=SUM, text_format=Sum, temperature=0, max_output_tokens=300
    )
    assert isinstance(parsed.output_parsed, Sum)
    flat: Any = [{"type": "function"} | tool["function"] for tool in TOOLS]
    called = client.responses.create(
        model="tiny", input=SUM, tools=flat, tool_choice="required", temperature=0,
        parallel_tool_calls=False, max_output_tokens=300,
    )  # fmt: skip
    (call,) = [item for item in called.output if item.type == "function_call"]
    assert call.name in ("add", "find")
    assert isinstance(json.loads(call.arguments), dict)
