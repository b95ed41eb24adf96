"""The request schema of `/v1/chat/completions`, with a bound on every number. Knows no encoding.

What is not served is refused by name with what to do instead; values that ask for nothing are
taken, because clients send them by default or send back what they got.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from lostwax.ir.contract.step import MAX_RANKED
from lostwax.server.gateway.models import MAX_TOKEN_ID, PREFIXES, GenerationRequest
from lostwax.server.gateway.tool_models import (
    MAX_NAME_CHARS,
    MAX_TOOLS,
    Choice,
    FunctionDefinition,
    Schema,
    Tool,
    read_json,
    require_choice,
    require_tools,
)
from lostwax.server.gateway.unsupported import (
    FieldError,
    Unread,
    given,
    only,
    require_neutral,
)

MAX_MESSAGES = 2048
MAX_PARTS = 256
MAX_CALLS = 128
MAX_ARGUMENT_VALUES = 200_000
"""Values in all arguments of a chat together: an agent's longest history has some thousands."""

Role = Literal["system", "developer", "user", "assistant", "tool"]
Name = Annotated[str, Meta(max_length=MAX_NAME_CHARS)]

_OF_ROLE = {
    "assistant": {"reasoning_content", "reasoning", "tool_calls"},
    "tool": {"tool_call_id"},
    "system": {"tools", "response_format"},
    "developer": {"tools", "response_format"},
}
"""What a message may hold beside its role and content."""

_AS_TOOLS = "send the functions as tools"
_THINKING = 'use chat_template_kwargs: {"thinking": true}'
_TEXT_ONLY = "this model reads and writes text only"
_ENCODER = "the model's own encoder renders chats; send your own text to /v1/completions"


ThinkingObject = Annotated[Unread, only({"type": "disabled"}, False, remedy=_THINKING)]
ReasoningObject = Annotated[Unread, only({"effort": "none"}, {"enabled": False}, remedy=_THINKING)]
ReasoningEffort = Annotated[Unread, only("none", remedy=_THINKING)]
EnableThinking = Annotated[Unread, only(False, remedy=_THINKING)]
ThinkingBudget = Annotated[Unread, only(0, remedy=_THINKING)]
"""What other servers' clients say for thinking."""
_IN_BOTH = ("reasoning_effort", "thinking_budget")
"""Of these, what stands in chat_template_kwargs, too, and asks for nothing there."""
CacheControl = Annotated[
    Unread,
    only(
        {"type": "ephemeral"},
        {"type": "ephemeral", "ttl": "5m"},
        {"type": "ephemeral", "ttl": "1h"},
        remedy=f"{PREFIXES}; leave it out",
    ),
]
"""What a client of Anthropic's interface marks messages and parts with."""


class TextPart(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="text"):
    """A piece of content."""

    text: str
    cache_control: CacheControl = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)


class RefusalPart(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="refusal"):
    """What another model said instead of an answer. The encoding has no place for it."""

    refusal: Annotated[Raw, Meta(extra_json_schema={"not": {}})]

    def __post_init__(self) -> None:
        raise FieldError("type", "a refusal is not rendered; send its text as content")


Part = TextPart | RefusalPart


class Function(Struct, frozen=True, forbid_unknown_fields=True):
    """What an assistant called. `arguments` is a JSON object, as text or as it is; what OpenAI's
    client has parsed of it, and sends back beside it, is not read."""

    name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS)]
    arguments: Annotated[
        Raw | UnsetType,
        Meta(extra_json_schema={"type": ["string", "object", "null"]}),
    ] = UNSET
    parsed_arguments: Unread = UNSET

    def __post_init__(self) -> None:
        if (given(self.arguments) or b"{")[:1] not in (b'"', b"{"):
            raise FieldError("arguments", "a JSON object belongs here, as text or as it is")
        _ = self.arguments_text  # whether it is text is known only when it is read

    @property
    def arguments_text(self) -> str:
        """The arguments as JSON text."""
        text = given(self.arguments) or b"{}"
        return msgspec.json.decode(text, type=str) if text[:1] == b'"' else text.decode()

    @property
    def num_values(self) -> int:
        """How many values reading the arguments can make, at most."""
        text = given(self.arguments) or b""
        return sum(text.count(mark) for mark in (b",", b"[", b"{", b"\\u"))


class ToolCall(Struct, frozen=True, forbid_unknown_fields=True):
    """One call of an assistant's turn. `index`, as streams have it, is not read: order counts."""

    function: Function
    id: Name | None = None
    type: Literal["function"] | None = None
    index: Annotated[int, Meta(ge=0, le=MAX_CALLS)] | None = None


class Message(Struct, frozen=True, forbid_unknown_fields=True):
    """A turn of the chat. `reasoning` is another name of `reasoning_content`. `name` is not
    rendered: the encoding has no place for it. A system or developer message may bring tools of its
    own, and a schema that is shown to the model (`response_format`, the schema itself): nothing
    holds an answer to that one. `parsed` is what OpenAI's client made of the content and sends
    back: it is not read."""

    role: Role
    content: str | Annotated[list[Part], Meta(max_length=MAX_PARTS)] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=MAX_CALLS)] | None = None
    tool_call_id: Name | None = None
    name: Name | None = None
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None = None
    response_format: Schema = UNSET
    refusal: Annotated[Unread, only("", remedy="send its text as content")] = UNSET
    annotations: Annotated[Unread, only([], remedy=_TEXT_ONLY)] = UNSET
    parsed: Unread = UNSET
    audio: Annotated[Unread, only(remedy=_TEXT_ONLY)] = UNSET
    function_call: Annotated[Unread, only(remedy="send it as one of tool_calls")] = UNSET
    cache_control: CacheControl = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)
        for field in sorted(set[str]().union(*_OF_ROLE.values())):
            if field in _OF_ROLE.get(self.role, ()):
                continue
            value = getattr(self, field)
            if given(value) if field == "response_format" else value:
                raise FieldError(field, f"a {self.role} message has no {field}; remove it")
        read_json(self.response_format, "response_format")
        _require_same(self, "reasoning", "reasoning_content")

    @property
    def text(self) -> str:
        """Its content as one text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in _texts(self.content))
        return self.content or ""

    def rendered(self) -> dict[str, Any]:
        """The message as the encoder reads it."""
        content = self.content
        if isinstance(content, list):
            content = [{"type": "text", "text": part.text} for part in _texts(content)]
        fields = {
            "role": self.role,
            "content": content,
            "reasoning_content": self.reasoning_content or self.reasoning,
            "tool_call_id": self.tool_call_id,
            "tool_calls": None
            if self.tool_calls is None
            else [_rendered_call(call) for call in self.tool_calls],
            "response_format": read_json(self.response_format, "response_format"),
        }
        return {name: value for name, value in fields.items() if value is not None}


def _texts(parts: list[Part]) -> Iterator[TextPart]:
    return (part for part in parts if isinstance(part, TextPart))  # a refusal was refused


def _rendered_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.function.name, "arguments": call.function.arguments_text}
    return {"id": call.id, "type": "function", "function": function}


def _require_same(holder: Struct, name: str, other: str) -> None:
    """FieldError where two names of one thing stand and differ."""
    values = getattr(holder, name), getattr(holder, other)
    if None not in values and values[0] != values[1]:
        raise FieldError(name, f"{other} is another name of it and says otherwise; give one")


def _require_silent(holder: Struct, *names: str) -> None:
    """FieldError where another name of the switch says not to think: the switch says to think."""
    for name in names:
        if given(getattr(holder, name)):
            raise FieldError(name, "chat_template_kwargs say the opposite; remove one of them")


class TemplateKwargs(Struct, frozen=True, forbid_unknown_fields=True):
    """What the chat encoding can be told.

    `enable_thinking` is another name of `thinking`. `trust_content` makes marks and tags in the
    messages structure, as the model's own encoder does.
    """

    thinking: bool | None = None
    enable_thinking: bool | None = None
    trust_content: bool | None = None
    reasoning_effort: ReasoningEffort = UNSET
    thinking_budget: ThinkingBudget = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)
        if None not in (said := {self.thinking, self.enable_thinking}) and len(said) > 1:
            raise FieldError("enable_thinking", "thinking says the opposite; remove one of them")
        if self.thinks:
            _require_silent(self, *_IN_BOTH)

    @property
    def thinks(self) -> bool | None:
        """Whether the model reasons before it answers; None where nothing was said."""
        return self.enable_thinking if self.thinking is None else self.thinking


class ChatRequest(GenerationRequest, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A request of `/v1/chat/completions`. With `tool_choice: "none"` tools are not rendered;
    `parallel_tool_calls: false` ends an answer at its first call. `separate_reasoning: false`
    leaves reasoning in the content. `continue_final_message` goes on with an assistant's message.
    """

    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKEN_ID)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKEN_ID)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_RANKED)] | None = None
    chat_template_kwargs: TemplateKwargs | None = None

    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    separate_reasoning: bool | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None

    functions: Annotated[Unread, Meta(extra_json_schema={"type": ["array", "null"]})] = UNSET
    function_call: Annotated[Unread, only("none", "auto", remedy=_AS_TOOLS)] = UNSET
    modalities: Annotated[Unread, only(["text"], remedy=_TEXT_ONLY)] = UNSET
    audio: Annotated[Unread, only(remedy=_TEXT_ONLY)] = UNSET
    prediction: Annotated[Unread, only(remedy="the model drafts by itself")] = UNSET
    verbosity: Annotated[Unread, only("medium", remedy="say it in a message")] = UNSET
    web_search_options: Annotated[Unread, only(remedy="there is no search here")] = UNSET
    moderation: Annotated[Unread, only(remedy="there is no moderation here")] = UNSET
    thinking: ThinkingObject = UNSET
    reasoning: ReasoningObject = UNSET
    reasoning_effort: ReasoningEffort = UNSET
    enable_thinking: EnableThinking = UNSET
    thinking_budget: ThinkingBudget = UNSET
    include_reasoning: Annotated[
        Unread, only(True, remedy="leave reasoning_content out yourself")
    ] = UNSET
    stream_reasoning: Annotated[
        Unread, only(True, remedy="leave reasoning_content out yourself")
    ] = UNSET
    echo: Annotated[Unread, only(False, remedy=_ENCODER)] = UNSET
    add_special_tokens: Annotated[Unread, only(False, remedy=_ENCODER)] = UNSET
    chat_template: Annotated[Unread, only(remedy=_ENCODER)] = UNSET
    documents: Annotated[Unread, only([], remedy="put them into a message")] = UNSET

    def __post_init__(self) -> None:
        super().__post_init__()
        require_tools(self.functions_told)
        require_choice(self.tool_choice, [function.name for function in self.functions_told])
        self._require_one_form()
        if self.continue_final_message and self.messages[-1].role != "assistant":
            raise FieldError(
                "continue_final_message", "the last message is no assistant's; leave it out"
            )
        if self.add_generation_prompt is False and not self.continue_final_message:
            raise FieldError("add_generation_prompt", f"only true is supported; {_ENCODER}")
        self._require_no_functions()
        _require_same(self, "max_tokens", "max_completion_tokens")
        if self.top_logprobs and not self.logprobs:
            raise FieldError("top_logprobs", "it needs logprobs=true")
        if self.thinks:
            _require_silent(self, "thinking", "reasoning", "enable_thinking", *_IN_BOTH)
        calls = (call for message in self.messages for call in message.tool_calls or ())
        if sum(call.function.num_values for call in calls) > MAX_ARGUMENT_VALUES:
            message = f"arguments of tool calls hold more than {MAX_ARGUMENT_VALUES} values"
            raise FieldError("messages", f"{message}; leave out the oldest calls")

    def _require_one_form(self) -> None:
        """FieldError where tools ask for another answer than the rest of the request."""
        is_json = self.format is None or self.format.grammar.kind.startswith("json")
        if self.format is not None and self.offered and not is_json:
            raise FieldError(
                self.format.param.split(".")[0],
                "beside tools an answer may be JSON of a schema; send that, or tool_choice none",
            )
        if self.forces_calls:
            self.require_own_end("a tool that must be called, or is strict,")

    def _require_no_functions(self) -> None:
        text = given(self.functions)
        if text is None:
            return
        if not text.startswith(b"["):
            raise FieldError("functions", "a list belongs here")
        is_empty = not text[1:-1].strip()
        if not is_empty and given(self.function_call) != b'"none"':
            raise FieldError("functions", f"chats do not take it; {_AS_TOOLS}")

    @property
    def functions_told(self) -> list[FunctionDefinition]:
        """Those of the tools of messages, and of the request's."""
        told = [tool for message in self.messages for tool in message.tools or ()]
        return [tool.function for tool in (*told, *(self.tools or ()))]

    @property
    def offered(self) -> list[dict[str, Any]]:
        """The tools that the model may call."""
        if self.tool_choice == "none":
            return []
        return [function.rendered() for function in self.functions_told]

    @property
    def of_request(self) -> list[dict[str, Any]]:
        """Those of `offered` that no message brings."""
        told = () if self.tool_choice == "none" else self.tools or ()
        return [tool.function.rendered() for tool in told]

    def turns(self) -> list[dict[str, Any]]:
        """The messages as the encoder reads them."""
        turns = [message.rendered() for message in self.messages]
        for turn, message in zip(turns, self.messages, strict=True):
            if message.tools and self.tool_choice != "none":
                turn["tools"] = [tool.function.rendered() for tool in message.tools]
        return turns

    @property
    def forces_calls(self) -> bool:
        """Whether calls must come, or an answer or calls must be as a schema says."""
        if not self.offered:
            return False
        is_free = self.tool_choice in (None, "auto") and self.format is None
        return not is_free or any(function.strict for function in self.functions_told)

    @property
    def most_tokens(self) -> int | None:
        """Tokens of the answer at most; None for what the context leaves."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def template(self) -> TemplateKwargs:
        """What the chat encoding is told."""
        return self.chat_template_kwargs or TemplateKwargs()

    def that_thinks(self) -> ChatRequest:
        """The same, of a model that reasons first."""
        template = msgspec.structs.replace(self.template, thinking=True)
        return msgspec.structs.replace(self, chat_template_kwargs=template)

    @property
    def variables(self) -> dict[str, Any]:
        """The same for a chat template of the operator's, by name. Of a switch with two names it
        reads one."""
        thinks = self.template.thinks
        return {} if thinks is None else {"thinking": thinks, "enable_thinking": thinks}

    @property
    def thinks(self) -> bool:
        """Whether the model reasons before it answers."""
        return bool(self.template.thinks)
