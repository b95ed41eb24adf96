"""The request schema of `/v1/responses`, with a bound on every number. Knows no encoding.

Nothing is stored: a conversation is told whole in each request.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, Struct

from lostwax.ir.contract.step import MAX_RANKED
from lostwax.server.gateway.chat_models import (
    MAX_MESSAGES,
    MAX_PARTS,
    ChatRequest,
    Name,
    RefusalPart,
    TemplateKwargs,
)
from lostwax.server.gateway.models import MAX_TOKEN_ID, GenerationRequest
from lostwax.server.gateway.response_format import (
    Asked,
    JsonObjectFormat,
    NamedSchema,
    TextFormat,
    asked_of,
)
from lostwax.server.gateway.tool_models import (
    MAX_TOOLS,
    Choice,
    FunctionDefinition,
    Mode,
    NamedChoice,
    NamedFunction,
    ToolName,
    require_choice,
    require_tools,
)
from lostwax.server.gateway.unsupported import FieldError, Unread, only, require_neutral

MAX_INCLUDES = 16

_CHATS = "/v1/chat/completions has it"
_STORED = "nothing is stored here: send the whole conversation as input"
_TEXT_ONLY = "this model reads and writes text only"
_WHOLE = "the whole reasoning is in the answer"
_FUNCTIONS = "tools are the client's functions, and it counts their calls"

Status = Literal["in_progress", "completed", "incomplete"]
_LOGPROBS = "message.output_text.logprobs"
Included = Literal["reasoning.encrypted_content", "message.output_text.logprobs"]
AsSent = Annotated[Unread, Meta(extra_json_schema={"type": ["array", "null"]})]
"""What an answer has and brings back; it is not read."""


class InputText(
    Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="input_text"
):
    """A text to the model."""

    text: str


class OutputText(
    Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="output_text"
):
    """A text of the model's."""

    text: str
    annotations: AsSent = UNSET
    logprobs: AsSent = UNSET


class ReasoningText(
    Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="reasoning_text"
):
    """Reasoning of the model's."""

    text: str


class SummaryText(
    Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="summary_text"
):
    """What another model's reasoning was about."""

    text: str


Part = InputText | OutputText | ReasoningText | SummaryText | RefusalPart
Parts = Annotated[list[Part], Meta(max_length=MAX_PARTS)]


def text_of(content: str | list[Part] | None) -> str:
    """The content as one text."""
    if isinstance(content, list):
        return "".join(part.text for part in content if not isinstance(part, RefusalPart))
    return content or ""


class Item(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A message (`type` may be left out), a call, its result, or reasoning. What an item needs
    beside its type follows from that: see `_NEEDS`."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    id: Name | None = None
    status: Status | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | Parts | None = None
    phase: Literal["commentary", "final_answer"] | None = None
    call_id: Name | None = None
    name: ToolName | None = None
    arguments: str | None = None
    output: str | Parts | None = None
    summary: Parts | None = None
    encrypted_content: Annotated[Unread, only("", remedy=_WHOLE)] = UNSET
    namespace: Annotated[Unread, only(remedy=_FUNCTIONS)] = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)
        needs, takes = _NEEDS[self.type]
        for field in needs:
            if getattr(self, field) is None:
                raise FieldError(field, f"a {self.type} needs it")
        for field in _OF_SOME - needs - takes:
            if getattr(self, field) is not None:
                raise FieldError(field, f"a {self.type} has none; remove it")


_NEEDS: dict[str, tuple[set[str], set[str]]] = {
    "message": ({"role", "content"}, {"phase"}),
    "function_call": ({"call_id", "name", "arguments"}, set()),
    "function_call_output": ({"call_id", "output"}, set()),
    "reasoning": (set(), {"content", "summary"}),
}
"""What an item of a type must have, and may have."""
_OF_SOME = set[str]().union(*(needs | takes for needs, takes in _NEEDS.values()))


class FlatTool(FunctionDefinition, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A function, told without a wrapper."""

    type: Literal["function"]


class FlatChoice(Struct, frozen=True, forbid_unknown_fields=True):
    """The function that must be called."""

    type: Literal["function"]
    name: ToolName


class Reasoning(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the model reasons: it does so in one strength, with every effort but `none`."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Annotated[Unread, only("auto", "detailed", remedy=_WHOLE)] = UNSET
    generate_summary: Annotated[Unread, only("auto", "detailed", remedy=_WHOLE)] = UNSET
    context: Annotated[
        Unread, only("auto", "current_turn", remedy="older reasoning is left out")
    ] = UNSET
    mode: Annotated[Unread, only("standard", remedy="there is one mode")] = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)


class FlatSchemaFormat(
    NamedSchema, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="json_schema"
):
    """JSON as a schema says."""


AnyFormat = TextFormat | JsonObjectFormat | FlatSchemaFormat


class TextConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The form of the answer."""

    format: AnyFormat | None = None
    verbosity: Annotated[Unread, only("medium", remedy="say it in a message")] = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)

    def asked(self) -> Iterator[Asked]:
        """What it asks of the answer, by the names that the client sent."""
        schema = self.format.schema if isinstance(self.format, FlatSchemaFormat) else None
        yield from asked_of(self.format, "text.format", schema, "text.format.schema")


class ResponsesRequest(GenerationRequest, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A request of `/v1/responses`. `instructions` are a system message before `input`."""

    REMEDIES: ClassVar = {
        "input[].role": "use system, developer, user or assistant",
        "reasoning.effort": "use none, minimal, low, medium, high, xhigh or max",
    }

    input: str | Annotated[list[Item], Meta(min_length=1, max_length=MAX_MESSAGES)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKEN_ID)] | None = None
    tools: Annotated[list[FlatTool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Mode | FlatChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    chat_template_kwargs: TemplateKwargs | None = None
    include: Annotated[list[Included], Meta(max_length=MAX_INCLUDES)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_RANKED)] | None = None

    previous_response_id: Annotated[Unread, only(remedy=_STORED)] = UNSET
    conversation: Annotated[Unread, only(remedy=_STORED)] = UNSET
    background: Annotated[Unread, only(False, remedy="ask for a stream and read it")] = UNSET
    background_options: Annotated[Unread, only(remedy="ask for a stream and read it")] = UNSET
    prompt: Annotated[Unread, only(remedy="send its text as instructions and input")] = UNSET
    truncation: Annotated[Unread, only("disabled", remedy="leave out old items yourself")] = UNSET
    context_management: Annotated[Unread, only([], remedy="leave out old items yourself")] = UNSET
    max_tool_calls: Annotated[Unread, only(remedy=_FUNCTIONS)] = UNSET
    response_format: Annotated[Unread, only(remedy="text.format says it here")] = UNSET  # pyright: ignore[reportIncompatibleVariableOverride]
    moderation: Annotated[Unread, only(remedy="there is no moderation here")] = UNSET
    modalities: Annotated[Unread, only(["text"], remedy=_TEXT_ONLY)] = UNSET
    n: Annotated[Unread, only(1, remedy=_CHATS)] = UNSET  # pyright: ignore[reportIncompatibleVariableOverride]
    best_of: Annotated[Unread, only(1, remedy=_CHATS)] = UNSET
    return_token_ids: Annotated[Unread, only(False, remedy=_CHATS)] = UNSET  # pyright: ignore[reportIncompatibleVariableOverride]

    def __post_init__(self) -> None:
        super().__post_init__()
        require_tools(self.tools or ())
        require_choice(self.choice, [tool.name for tool in self.tools or ()])
        _ = self.template  # what it refuses, this does
        if self.top_logprobs and not self.scored:
            raise FieldError("top_logprobs", f'it needs include: ["{_LOGPROBS}"]')

    @property
    def num_choices(self) -> int:
        """One."""
        return 1

    @property
    def scored(self) -> bool:
        """Whether the log-probabilities of its texts are asked for."""
        return _LOGPROBS in (self.include or ())

    @property
    def choice(self) -> Choice | None:
        """Which tool must be called, as chats say it."""
        if isinstance(self.tool_choice, FlatChoice):
            return NamedChoice(type="function", function=NamedFunction(self.tool_choice.name))
        return self.tool_choice

    def _asked(self) -> Iterator[Asked]:
        yield from self.text.asked() if self.text else ()
        yield from super()._asked()

    @property
    def template(self) -> TemplateKwargs:
        """What the chat encoding is told; FieldError where an effort contradicts it."""
        template = self.chat_template_kwargs or TemplateKwargs()
        effort = None if self.reasoning is None else self.reasoning.effort
        if effort is None:
            return template
        if template.thinks not in (None, effort != "none"):
            raise FieldError("reasoning", "chat_template_kwargs say the opposite; remove one")
        return msgspec.structs.replace(template, thinking=effort != "none")

    @property
    def echo(self) -> dict[str, Any]:
        """What an answer repeats of its request, with the defaults that hold."""
        tools = [{"type": "function"} | tool.told() for tool in self.tools or ()]
        return {
            "background": False,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "metadata": self.metadata or {},
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": self.reasoning and self.reasoning.effort, "summary": None},
            "service_tier": "default",
            "store": False,
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "text": {"format": (self.text and self.text.format) or TextFormat()},
            "tool_choice": "auto" if self.tool_choice is None else self.tool_choice,
            "tools": tools,
            "top_logprobs": self.top_logprobs or 0,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "truncation": "disabled",
            "user": self.user,
        }


class ResponseChat(ChatRequest, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A response as a chat. The form of its answer keeps the name that it came under."""

    text: TextConfig | None = None

    def _asked(self) -> Iterator[Asked]:
        yield from self.text.asked() if self.text else ()
        yield from super()._asked()
