"""Every bound on a request takes the largest that fits it and refuses the next larger one."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from scripted_runtime import CODEC, EOS_ID, VOCAB

from lostwax.ir.contract.model import CHAT_V32
from lostwax.ir.contract.step import MAX_RANKED
from lostwax.server.engine.messages import EngineInfo
from lostwax.server.gateway.admission import Admission
from lostwax.server.gateway.chat_models import (
    MAX_ARGUMENT_VALUES,
    MAX_CALLS,
    MAX_MESSAGES,
    MAX_NAME_CHARS,
    MAX_PARTS,
)
from lostwax.server.gateway.decoding import MAX_STRINGS, require_few_strings
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.fitting import MARGIN, SLICE_CHARS, require_fitting
from lostwax.server.gateway.models import (
    MAX_BIASES,
    MAX_CHOICES,
    MAX_HINT_CHARS,
    MAX_METADATA,
    MAX_PROMPTS,
    MAX_STOP_CHARS,
    MAX_STOPS,
    MAX_TOKEN_ID,
)
from lostwax.server.gateway.prepare import prepare
from lostwax.server.gateway.prepared import Job, Prepared
from lostwax.server.gateway.submits import MAX_BIASES_TOGETHER
from lostwax.server.gateway.tokenizer import TextCodec
from lostwax.server.gateway.unsupported import MAX_NEUTRAL_BYTES

CONTEXT, TOGETHER = 40, 60
INFO = EngineInfo(
    model="fake",
    vocab_size=VOCAB,
    max_context=CONTEXT,
    max_reqs=1,
    max_top_logprobs=MAX_RANKED,
    eos_token_ids=(EOS_ID,),
    chat_encoding=CHAT_V32,
)
COMPLETION = Job(route="completions", model="fake", info=INFO, max_tokens=TOGETHER)
WIDE = msgspec.structs.replace(
    COMPLETION,
    info=msgspec.structs.replace(INFO, max_context=2**31, max_top_logprobs=MAX_RANKED),
    max_tokens=2**31,
)
CHAT = msgspec.structs.replace(WIDE, route="chat")


def _read(body: bytes | dict[str, Any], job: Job) -> Prepared:
    return prepare(body if isinstance(body, bytes) else msgspec.json.encode(body), job, CODEC)


def _require_edge(fits: bytes | dict[str, Any], exceeds: bytes | dict[str, Any], job: Job) -> str:
    """The refusal of what exceeds; what fits is taken."""
    assert _read(fits, job).submits
    with pytest.raises(ApiError) as refused:
        _read(exceeds, job)
    assert refused.value.status == 400
    return f"{refused.value.code} {refused.value.param}"


PROMPTS = {
    "texts": (["x"] * MAX_PROMPTS, ["x"] * (MAX_PROMPTS + 1)),
    "lists of ids": ([[1]] * MAX_PROMPTS, [[1]] * (MAX_PROMPTS + 1)),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_exactly_as_many_prompts_as_allowed_are_taken(name: str) -> None:
    fits, exceeds = PROMPTS[name]
    assert len(_read({"prompt": fits}, WIDE).submits) == MAX_PROMPTS
    assert _require_edge({"prompt": fits}, {"prompt": exceeds}, WIDE) == "invalid_value prompt"


def test_a_context_is_filled_to_its_last_token() -> None:
    too_long = "context_length_exceeded prompt"
    for prompt, longer in (([1] * CONTEXT, [1] * (CONTEXT + 1)), ("x" * CONTEXT, "x" * 41)):
        fits, exceeds = ({"prompt": p, "max_tokens": 0} for p in (prompt, longer))
        assert _require_edge(fits, exceeds, COMPLETION) == too_long
    ids = [1] * (CONTEXT - 9)
    fits, exceeds = ({"prompt": ids, "max_tokens": n} for n in (9, 10))
    assert _require_edge(fits, exceeds, COMPLETION) == too_long


@pytest.mark.parametrize("unit", ["x", 1])
def test_prompts_hold_exactly_so_many_tokens_together(unit: str | int) -> None:
    def prompts(*lengths: int) -> dict[str, Any]:
        filled = ["x" * n if isinstance(unit, str) else [unit] * n for n in lengths]
        return {"prompt": filled, "max_tokens": 0}

    fits, exceeds = prompts(CONTEXT, TOGETHER - CONTEXT), prompts(CONTEXT, TOGETHER - CONTEXT + 1)
    assert _require_edge(fits, exceeds, COMPLETION) == "invalid_value prompt"


def test_choices_hold_exactly_so_many_prompt_tokens_together() -> None:
    """Each has the tokens of its own prompt."""
    fits, exceeds = ({"prompt": [1] * n, "n": 3} for n in (TOGETHER // 3, TOGETHER // 3 + 1))
    assert _require_edge(fits, exceeds, COMPLETION) == "invalid_value prompt"
    fits, exceeds = ({"prompt": [[1] * 5, [1] * n], "n": 3} for n in (15, 16))
    assert _require_edge(fits, exceeds, COMPLETION) == "invalid_value prompt"
    num_prompt = len(_read(_asked(), CHAT).submits[0].prompt)
    job = msgspec.structs.replace(CHAT, max_tokens=4 * num_prompt)
    fits, exceeds = (_asked(n=n) for n in (4, 5))
    assert _require_edge(fits, exceeds, job) == "invalid_value messages"


@pytest.mark.parametrize("num_choices", [MAX_CHOICES, 2])
def test_choices_have_exactly_so_many_biases_together(num_choices: int) -> None:
    """One alone is bounded by the biases of one."""
    most = min(MAX_BIASES_TOGETHER // num_choices, MAX_BIASES)
    for body, job in (({"prompt": [1]}, WIDE), (_asked(), CHAT)):
        info = msgspec.structs.replace(job.info, vocab_size=MAX_BIASES + 1)
        wide = msgspec.structs.replace(job, info=info)
        fits, exceeds = (
            body | {"n": num_choices, "logit_bias": dict.fromkeys(map(str, range(count)), 1)}
            for count in (most, most + 1)
        )
        assert _require_edge(fits, exceeds, wide) == "invalid_value logit_bias"


def test_the_last_id_of_the_vocabulary_is_a_token() -> None:
    fits, exceeds = ({"prompt": [token]} for token in (VOCAB - 1, VOCAB))
    assert _require_edge(fits, exceeds, COMPLETION) == "invalid_value prompt"


def test_exactly_as_many_alternatives_as_the_artifact_ranks_are_given() -> None:
    info = msgspec.structs.replace(INFO, max_top_logprobs=3)
    job = msgspec.structs.replace(COMPLETION, info=info)
    fits, exceeds = ({"prompt": [1], "logprobs": n} for n in (3, 4))
    assert _require_edge(fits, exceeds, job) == "unsupported_value logprobs"


def test_a_bias_has_so_many_ids_at_most() -> None:
    info = msgspec.structs.replace(COMPLETION.info, vocab_size=MAX_BIASES + 1)
    job = msgspec.structs.replace(COMPLETION, info=info)
    fits, exceeds = (
        {"prompt": [1], "logit_bias": dict.fromkeys(map(str, range(count)), 1)}
        for count in (MAX_BIASES, MAX_BIASES + 1)
    )
    assert _require_edge(fits, exceeds, job) == "invalid_value logit_bias"
    fits, exceeds = ({"prompt": [1], "logit_bias": {str(i): 1}} for i in (MAX_BIASES, 2000))
    assert _require_edge(fits, exceeds, job) == "invalid_value logit_bias"


def test_so_many_tokens_at_least_are_no_more_than_at_most() -> None:
    fits, exceeds = ({"prompt": [1], "max_tokens": 9, "min_tokens": n} for n in (9, 10))
    assert _require_edge(fits, exceeds, COMPLETION) == "invalid_value min_tokens"


FIELDS: dict[str, tuple[Any, Any, str]] = {
    "stop": (["x"] * MAX_STOPS, ["x"] * (MAX_STOPS + 1), "stop"),
    "a stop": ("x" * MAX_STOP_CHARS, "x" * (MAX_STOP_CHARS + 1), "stop"),
    "the shortest stop": ("x", "", "stop"),
    "stop_token_ids": ([1] * MAX_STOPS, [1] * (MAX_STOPS + 1), "stop_token_ids"),
    "a stop token": ([MAX_TOKEN_ID], [MAX_TOKEN_ID + 1], "stop_token_ids[0]"),
    "the least stop token": ([0], [-1], "stop_token_ids[0]"),
    "temperature": (2, 2.001, "temperature"),
    "the least temperature": (0, -0.001, "temperature"),
    "top_p": (1, 1.001, "top_p"),
    "the least top_p": (1e-9, 0, "top_p"),
    "logit_bias": ({"1": 100}, {"1": 100.5}, "logit_bias[...]"),
    "the least logit_bias": ({"1": -100}, {"1": -100.5}, "logit_bias[...]"),
    "presence_penalty": (2, 2.001, "presence_penalty"),
    "the least presence_penalty": (-2, -2.001, "presence_penalty"),
    "frequency_penalty": (2, 2.001, "frequency_penalty"),
    "the least frequency_penalty": (-2, -2.001, "frequency_penalty"),
    "repetition_penalty": (2, 2.001, "repetition_penalty"),
    "the least repetition_penalty": (0.01, 0.0099, "repetition_penalty"),
    "min_tokens": (0, -1, "min_tokens"),
    "n": (MAX_CHOICES, MAX_CHOICES + 1, "n"),
    "the least n": (1, 0, "n"),
    "top_k": (MAX_TOKEN_ID, MAX_TOKEN_ID + 1, "top_k"),
    "the least top_k": (-1, -2, "top_k"),
    "min_p": (1, 1.001, "min_p"),
    "the least min_p": (0, -0.001, "min_p"),
    "seed": (2**63 - 1, 2**63, "seed"),
    "the least seed": (-(2**63), -(2**63) - 1, "seed"),
    "max_tokens": (MAX_TOKEN_ID, MAX_TOKEN_ID + 1, "max_tokens"),
    "the least max_tokens": (0, -1, "max_tokens"),
    "logprobs": (MAX_RANKED, MAX_RANKED + 1, "logprobs"),
    "the least logprobs": (0, -1, "logprobs"),
    "user": ("x" * MAX_HINT_CHARS, "x" * (MAX_HINT_CHARS + 1), "user"),
    "metadata": (
        {str(i): "" for i in range(MAX_METADATA)},
        {str(i): "" for i in range(MAX_METADATA + 1)},
        "metadata",
    ),
    "a name in metadata": ({"x" * 64: ""}, {"x" * 65: ""}, "metadata"),
    "a value in metadata": ({"x": "y" * 512}, {"x": "y" * 513}, "metadata[...]"),
}
NAMED = {
    "a stop": "stop",
    "the shortest stop": "stop",
    "a stop token": "stop_token_ids",
    "the least stop token": "stop_token_ids",
    "a name in metadata": "metadata",
    "a value in metadata": "metadata",
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_takes_its_largest_and_its_smallest_value(name: str) -> None:
    fits, exceeds, param = FIELDS[name]
    field = NAMED.get(name, name.removeprefix("the least "))
    job = msgspec.structs.replace(
        WIDE, info=msgspec.structs.replace(WIDE.info, max_context=2 * MAX_TOKEN_ID)
    )
    inside, outside = ({"prompt": [1], field: value} for value in (fits, exceeds))
    assert _require_edge(inside, outside, job) == f"invalid_value {param}"


def _asked(**given: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1} | given


def _said(content: Any) -> dict[str, Any]:
    return _asked(messages=[{"role": "user", "content": content}])


def _calls(count: int, arguments: dict[str, Any] | None = None, name: str = "f") -> dict[str, Any]:
    call = {"function": {"name": name, "arguments": arguments or {}}}
    turn = {"role": "assistant", "tool_calls": [call] * count}
    return _asked(messages=[turn, {"role": "user", "content": "x"}])


def _turns(count: int) -> dict[str, Any]:
    return _asked(messages=[{"role": "user", "content": "x"}] * count)


def _parts(count: int) -> dict[str, Any]:
    return _said([{"type": "text", "text": "x"}] * count)


def _values(count: int) -> dict[str, Any]:
    """A call whose arguments have so many of what makes a value: braces, brackets and commas."""
    return _calls(1, {"a": [0] * (count - 1)})


CHATS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "messages": (_turns(MAX_MESSAGES), _turns(MAX_MESSAGES + 1), "messages"),
    "one message": (_turns(1), _turns(0), "messages"),
    "parts": (_parts(MAX_PARTS), _parts(MAX_PARTS + 1), "messages[0].content"),
    "calls": (_calls(MAX_CALLS), _calls(MAX_CALLS + 1), "messages[0].tool_calls"),
    "a name": (
        _calls(1, name="x" * MAX_NAME_CHARS),
        _calls(1, name="x" * (MAX_NAME_CHARS + 1)),
        "messages[0].tool_calls[0].function.name",
    ),
    "values of arguments": (
        _values(MAX_ARGUMENT_VALUES),
        _values(MAX_ARGUMENT_VALUES + 1),
        "messages",
    ),
    "tokens": (_asked(max_tokens=1), _asked(max_tokens=0), "max_tokens"),
    "alternatives": (
        _asked(logprobs=True, top_logprobs=MAX_RANKED),
        _asked(logprobs=True, top_logprobs=MAX_RANKED + 1),
        "top_logprobs",
    ),
}


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_holds_exactly_as_much_as_its_bounds_allow(name: str) -> None:
    fits, exceeds, param = CHATS[name]
    assert _require_edge(fits, exceeds, CHAT) == f"invalid_value {param}"


def test_a_chat_fills_the_context_to_its_last_token() -> None:
    num_prompt = len(_read(_asked(), CHAT).submits[0].prompt)
    info = msgspec.structs.replace(INFO, max_context=num_prompt + 3)
    job = msgspec.structs.replace(CHAT, info=info)
    fits, exceeds = (_asked(max_tokens=n) for n in (3, 4))
    assert _require_edge(fits, exceeds, job) == "context_length_exceeded messages"
    (all_that_is_left,) = _read(_asked(max_tokens=None), job).submits
    assert all_that_is_left.max_tokens == 3


@pytest.mark.parametrize("text", ["", "x", '\\"', "\\\\"])
def test_exactly_as_many_strings_as_allowed_are_read(text: str) -> None:
    def body(count: int) -> bytes:
        return b'{"prompt":[' + b",".join([f'"{text}"'.encode()] * (count - 1)) + b"]}"

    require_few_strings(body(MAX_STRINGS))
    if text != "\\\\":  # such a string counts as half of one at least
        with pytest.raises(ApiError, match=f"more than {MAX_STRINGS} names and texts"):
            require_few_strings(body(MAX_STRINGS + 1))
    with pytest.raises(ApiError, match=f"more than {MAX_STRINGS} names and texts"):
        _read(body(2 * MAX_STRINGS + 2), WIDE)


def test_a_value_that_asks_for_nothing_is_read_up_to_a_length() -> None:
    fits, exceeds = (
        b'{"prompt": [1], "best_of": 1.%b}' % (b"0" * (MAX_NEUTRAL_BYTES - 2 + more))
        for more in (0, 1)
    )
    assert _require_edge(fits, exceeds, COMPLETION) == "invalid_value best_of"


class _Counting(TextCodec):
    """Says that every text has so many tokens a slice, and how often it was asked."""

    def __init__(self, num_tokens: int, longest: int | None) -> None:
        self.longest = longest
        self.num_asked = 0
        self._num_tokens = num_tokens

    def encode_rendered(self, text: str) -> list[int]:
        self.num_asked += 1
        return [0] * self._num_tokens


def test_a_text_of_exactly_a_context_of_the_longest_tokens_is_tokenised() -> None:
    longest, context = CODEC.longest, 3
    assert longest is not None
    require_fitting("x" * (context * longest), context, CODEC, "prompt")
    with pytest.raises(ApiError, match=f"{context * longest + 1} bytes of text"):
        require_fitting("x" * (context * longest + 1), context, CODEC, "prompt")
    # A character of two bytes counts as two.
    with pytest.raises(ApiError, match="bytes of text"):
        require_fitting("é" * (context * longest // 2 + 1), context, CODEC, "prompt")


@pytest.mark.parametrize("longest", [None, 100])
def test_a_text_is_counted_from_one_byte_above_what_is_cheap(longest: int | None) -> None:
    max_tokens = SLICE_CHARS
    for num_bytes, num_asked in ((2 * max_tokens, 0), (2 * max_tokens + 1, 3)):
        codec = _Counting(1, longest)
        require_fitting("x" * num_bytes, max_tokens, codec, "prompt")
        assert codec.num_asked == num_asked


def test_a_text_is_refused_from_one_token_above_the_margin() -> None:
    max_tokens, text = 1000, "x" * (SLICE_CHARS + 1)
    require_fitting(text, max_tokens, _Counting(int(MARGIN * max_tokens) // 2, None), "prompt")
    with pytest.raises(ApiError, match="more than 1252 tokens"):
        require_fitting(text, max_tokens, _Counting(626, None), "prompt")


def test_admission_is_full_at_exactly_its_bounds() -> None:
    admission = Admission(max_reqs=8, max_tokens=100)
    admission.admit(1, 60)
    admission.admit(1, 40)
    with pytest.raises(ApiError, match="the queue is full"):
        admission.admit(1, 1)
    admission.admit(6, 0)
    with pytest.raises(ApiError, match="the queue is full"):
        admission.admit(1, 0)
    empty = Admission(max_reqs=2, max_tokens=1)
    empty.admit(2, 50).release()
    with pytest.raises(ApiError, match="3 answers exceed the queue of 2") as never:
        empty.admit(3, 0)
    assert never.value.status == 400
