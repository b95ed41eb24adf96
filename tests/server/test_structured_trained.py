"""Formats of answers over HTTP, from the trained tiny model: right JSON, and clear refusals."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from grammar_processes import process_of
from jsonschema import Draft202012Validator
from structured_fixtures import FORMAT, SUM, StructuredModel, Sum, ask
from trained_fixtures import TRAINED

from lostwax.server.engine.messages import Failed, Output, Submit
from lostwax.server.formats.encoding_v32 import EOS, THINK_END, encode_pieces
from lostwax.server.grammar.grammar import Grammar

TASKS = TRAINED.parent / "tasks"


def test_the_openai_client_parses_an_answer(structured_client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": SUM}]
    answer = structured_client.chat.completions.parse(
        model="tiny", messages=messages, response_format=Sum, temperature=0, max_tokens=300
    )
    assert isinstance(answer.choices[0].message.parsed, Sum)
    assert answer.choices[0].finish_reason == "stop"


def test_a_stream_is_the_whole_answer(structured_client: openai.OpenAI) -> None:
    whole = ask(structured_client, SUM, response_format=FORMAT)
    parts = list(ask(structured_client, SUM, response_format=FORMAT, stream=True))
    said = "".join(part.choices[0].delta.content or "" for part in parts)
    assert said == whole.choices[0].message.content
    Sum.model_validate_json(said)


def test_reasoning_is_free_and_what_follows_is_not(structured_client: openai.OpenAI) -> None:
    extra = {"chat_template_kwargs": {"thinking": True}}
    answer = ask(structured_client, SUM, response_format=FORMAT, extra_body=extra, max_tokens=400)
    free = ask(structured_client, SUM, extra_body=extra, max_tokens=400)
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
    structured_client: openai.OpenAI, given: dict[str, Any], pattern: str
) -> None:
    answer = ask(structured_client, SUM, extra_body=given, n=2, temperature=1, seed=3)
    text = structured_client.completions.create(
        model="tiny", prompt=SUM, max_tokens=60, extra_body=given
    )
    said = [choice.message.content for choice in answer.choices] + [text.choices[0].text]
    assert all(re.fullmatch(pattern, each) for each in said), said
    assert {choice.finish_reason for choice in (*answer.choices, *text.choices)} == {"stop"}


@pytest.mark.parametrize("stream", [False, True])
def test_a_grammar_that_cannot_be_followed_is_a_400_that_names_it(
    structured_client: openai.OpenAI, stream: bool
) -> None:
    for given, param, why in (
        ({"guided_regex": "("}, "guided_regex", "unclosed group"),
        ({"guided_json": {"type": "nothing"}}, "guided_json", "nothing"),
        ({"guided_regex": "(a{1000}){1000}"}, "guided_regex", "ms a token|within 2 s"),
    ):
        with pytest.raises(openai.BadRequestError, match=why) as refused:
            ask(structured_client, SUM, stream=stream, extra_body=given)
        assert (refused.value.code, refused.value.param) == ("invalid_grammar", param)


def test_an_answer_whose_process_is_killed_ends_with_an_error_and_others_go_on(
    structured_client: openai.OpenAI, structured_model: StructuredModel
) -> None:
    endless = {"guided_regex": "[a-z]{300}"}
    grammar = Grammar("regex", "[a-z]{300}")
    other = list[str]()

    def count() -> None:
        answer = ask(structured_client, SUM, extra_body={"guided_regex": "[0-9]{100}"})
        other.append(answer.choices[0].message.content)

    beside = threading.Thread(target=count)
    beside.start()
    stream = ask(structured_client, SUM, stream=True, extra_body=endless)
    next(stream)
    os.kill(process_of(structured_model.grammars, grammar), signal.SIGKILL)
    with pytest.raises(openai.APIError, match="the process that follows its grammar was ended"):
        list(stream)
    beside.join()
    assert re.fullmatch("[0-9]{100}", other[0])
    again = ask(structured_client, SUM, extra_body=endless)
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


def _check_all(structured_client: openai.OpenAI, count: int) -> None:
    tasks = _tasks(count)
    assert len(tasks) == count

    def ask_both(task: tuple[str, dict[str, Any]]) -> tuple[str, str, str]:
        content, schema = task
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        choice = ask(structured_client, content, response_format=form).choices[0]
        free = ask(structured_client, content).choices[0].message.content or ""
        return choice.message.content, choice.finish_reason, free

    with ThreadPoolExecutor(8) as threads:
        said = list(threads.map(ask_both, tasks))
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


def test_every_answer_that_ends_is_valid(structured_client: openai.OpenAI) -> None:
    _check_all(structured_client, 8)


@pytest.mark.slow
def test_every_answer_of_200_that_ends_is_valid(structured_client: openai.OpenAI) -> None:
    _check_all(structured_client, 200)


def _answers(
    structured_model: StructuredModel, drafts: int, prompts: list[list[int]], grammars: list[Any]
) -> Any:
    """Token ids of answers that run together, and how many drafts were accepted."""
    core, found = structured_model.core(drafts), dict[str, list[int]]()
    for i, prompt in enumerate(prompts):
        after = structured_model.codec.marks[THINK_END] if i % 3 == 2 else None
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
def test_answers_with_drafts_are_those_of_the_grammar_alone(
    structured_model: StructuredModel, count: int
) -> None:
    prompts = list[list[int]]()
    grammars = list[Grammar | None]()
    for i, (content, schema) in enumerate(_tasks(count)):
        mode: Any = "thinking" if i % 3 == 2 else "chat"
        pieces = encode_pieces([{"role": "user", "content": content}], mode)
        prompts.append(structured_model.codec.encode_pieces(pieces))
        grammars.append(Grammar("json_schema", json.dumps(schema)) if i % 4 else None)
    want, none = _answers(structured_model, 0, prompts, grammars)
    found, accepted = _answers(structured_model, 2, prompts, grammars)
    assert found == want
    assert (none, accepted > count) == (0, True), accepted
    eos = structured_model.codec.marks[EOS]
    for i, grammar in enumerate(grammars):
        ids = found[f"{i}"]
        if grammar is not None and ids[-1] == eos:
            text = structured_model.codec.decode(ids).rpartition(THINK_END)[2]
            assert _is_valid(text, json.loads(grammar.text)), text


def test_the_example_of_the_page_prints_what_it_asked_for(
    structured_client: openai.OpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "structured-output.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code = code.replace("http://127.0.0.1:8000/v1", str(structured_client.base_url))
    # Without this file's annotations that are text, which pydantic would look up here.
    exec(compile(code, "page", "exec", dont_inherit=True), {"__name__": "example"})
    assert re.fullmatch(r"result=-?\d+ unit='(apples|pears)'\n", capsys.readouterr().out)
