"""The request schemas of `/v1/messages` and its `count_tokens`, with a bound on every number.

Know no encoding. The interface is Anthropic's.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import UNSET, Meta, Raw, Struct

from lostwax.server.gateway.chat_models import (
    MAX_MESSAGES,
    MAX_NAME_CHARS,
    MAX_PARTS,
    CacheControl,
)
from lostwax.server.gateway.models import MAX_STOPS, MAX_TOKEN_ID, Hint, Stop
from lostwax.server.gateway.tool_models import (
    MAX_TOOLS,
    Choice,
    Description,
    FunctionDefinition,
    NamedChoice,
    NamedFunction,
    Schema,
    ToolName,
    read_schema,
    require_choice,
    require_tool_name,
    require_tools,
)
from lostwax.server.gateway.unsupported import FieldError, Unread, only, require_neutral

_WHOLE = "the whole thinking is in the answer"
_FORMAT = "/v1/chat/completions holds formats (response_format), /v1/responses too (text.format)"
_TOOLS = "the client runs all tools"
_ONE = "there is one kind of service here"
_STORED = "nothing is stored: send the whole conversation, as its client does with thread=False"
CallId = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS)]


class TextBlock(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="text"):
    """A text."""

    text: str
    cache_control: CacheControl = UNSET
    citations: Annotated[Unread, only([], remedy="put the text that is cited into a message")] = (
        UNSET
    )

    def __post_init__(self) -> None:
        require_neutral(self)


class ThinkingBlock(
    Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="thinking"
):
    """Reasoning that comes back. There are no signatures here: one is not read."""

    thinking: str
    signature: str | None = None


class RedactedBlock(
    Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="redacted_thinking"
):
    """Reasoning that another server has encrypted."""

    data: Annotated[Raw, Meta(extra_json_schema={"not": {}})]

    def __post_init__(self) -> None:
        raise FieldError("type", "encrypted thinking cannot be read; leave it out")


class ToolUseBlock(
    Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="tool_use"
):
    """A call that the assistant made."""

    id: CallId
    name: ToolName
    input: Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
    cache_control: CacheControl = UNSET
    caller: Annotated[Unread, only({"type": "direct"}, remedy=_TOOLS)] = UNSET
    toolset_name: Annotated[Unread, only(remedy=_TOOLS)] = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)
        if not bytes(self.input).startswith(b"{"):
            raise FieldError("input", "an object belongs here")


class ToolResultBlock(
    Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="tool_result"
):
    """The result of a call. `is_error` is not rendered: its content says what went wrong."""

    tool_use_id: CallId
    content: str | Annotated[list[TextBlock], Meta(max_length=MAX_PARTS)] | None = None
    is_error: bool | None = None
    cache_control: CacheControl = UNSET
    toolset_name: Annotated[Unread, only(remedy=_TOOLS)] = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)


Block = TextBlock | ThinkingBlock | RedactedBlock | ToolUseBlock | ToolResultBlock
_OF_ROLE = {
    "user": (TextBlock, ToolResultBlock),
    "assistant": (TextBlock, ThinkingBlock, ToolUseBlock),
    "system": (TextBlock,),
}


class Turn(Struct, frozen=True, forbid_unknown_fields=True):
    """A message. Results of tools are the user's, and come first in it."""

    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Meta(max_length=MAX_PARTS)]

    def __post_init__(self) -> None:
        for block in self.content if isinstance(self.content, list) else ():
            if not isinstance(block, _OF_ROLE[self.role]):
                kind = block.__struct_config__.tag
                raise FieldError("content", f"a {self.role} message has no {kind}; remove it")


class MessagesTool(Struct, frozen=True, forbid_unknown_fields=True):
    """A tool that the client runs."""

    name: ToolName
    input_schema: Schema = UNSET
    description: Description | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None
    cache_control: CacheControl = UNSET
    defer_loading: Annotated[Unread, only(False, remedy="all tools are shown")] = UNSET
    eager_input_streaming: bool | None = None
    """Read and without effect: a call is told when it is whole."""

    def __post_init__(self) -> None:
        require_neutral(self)
        require_tool_name(self.name)
        read_schema(self.input_schema, "input_schema")

    @property
    def function(self) -> FunctionDefinition:
        """The same as chats have it."""
        return FunctionDefinition(self.name, self.description, self.input_schema, self.strict)


class ToolChoice(Struct, frozen=True, forbid_unknown_fields=True):
    """Which tool is called, and whether only one is."""

    type: Literal["auto", "any", "tool", "none"]
    name: ToolName | None = None
    disable_parallel_tool_use: bool | None = None

    def __post_init__(self) -> None:
        if (self.type == "tool") != (self.name is not None):
            raise FieldError("name", "it goes with type 'tool', and with that alone")

    @property
    def choice(self) -> Choice:
        """The same as chats say it."""
        if self.name is not None:
            return NamedChoice(type="function", function=NamedFunction(self.name))
        return "required" if self.type == "any" else "none" if self.type == "none" else "auto"


class Thinking(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the model reasons: `adaptive` is `enabled`, as it cannot choose. `budget_tokens` says
    how much is hoped for; what bounds reasoning and answer is `max_tokens`."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKEN_ID)] | None = None
    display: Annotated[Unread, only("summarized", remedy=_WHOLE)] = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)


class OutputConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The form of the answer: text of any length."""

    format: Annotated[Unread, only(remedy=_FORMAT)] = UNSET
    effort: Annotated[Unread, only("high", remedy="thinking has one strength here")] = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)


class UserId(Struct, frozen=True, forbid_unknown_fields=True):
    """Whose request it is: a hint."""

    user_id: Hint | None = None


class CountTokensRequest(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A request of `/v1/messages/count_tokens`: what a prompt is made of."""

    REMEDIES: ClassVar = {
        "messages[].role": "use user, assistant or system",
        "tools[].type": (
            "a tool that the client runs has type 'custom' or no type; no other runs here"
        ),
        "tool_choice.type": "use auto, any, tool or none",
        "thinking.type": "use enabled, adaptive or disabled",
    }

    model: Hint | None = None
    messages: Annotated[list[Turn], Meta(min_length=1, max_length=MAX_MESSAGES)]
    system: str | Annotated[list[TextBlock], Meta(max_length=MAX_PARTS)] | None = None
    tools: Annotated[list[MessagesTool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl = UNSET
    speed: Annotated[Unread, only("standard", remedy=_ONE)] = UNSET
    mcp_servers: Annotated[Unread, only([], remedy=_TOOLS)] = UNSET
    thread: Annotated[Unread, only(remedy=_STORED)] = UNSET
    context_management: Annotated[Unread, only(remedy="leave out old messages yourself")] = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)
        require_tools([tool.function for tool in self.tools or ()])
        names = [tool.name for tool in self.tools or ()]
        require_choice(self.tool_choice and self.tool_choice.choice, names)

    @property
    def thinks(self) -> bool:
        """Whether the model reasons before it answers."""
        return self.thinking is not None and self.thinking.type != "disabled"


class MessagesRequest(CountTokensRequest, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A request of `/v1/messages`. An assistant's message at the end, of text, is gone on with."""

    max_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKEN_ID)]
    temperature: Annotated[float, Meta(ge=0, le=2, extra_json_schema={"default": 1.0})] | None = (
        None
    )
    top_p: Annotated[float, Meta(gt=0, le=1, extra_json_schema={"default": 1.0})] | None = None
    top_k: Annotated[int, Meta(ge=0, le=MAX_TOKEN_ID)] | None = None
    stop_sequences: Annotated[list[Stop], Meta(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    metadata: UserId | None = None
    service_tier: Annotated[Unread, only("auto", "standard_only", remedy=_ONE)] = UNSET
    container: Annotated[Unread, only(remedy=_TOOLS)] = UNSET
    inference_geo: Annotated[Unread, only(remedy=_ONE)] = UNSET

    @property
    def takes_one_call(self) -> bool:
        """Whether an answer ends at its first call."""
        return self.tool_choice is not None and bool(self.tool_choice.disable_parallel_tool_use)


def text_of(content: str | list[TextBlock] | None) -> str:
    """A content of texts as one: what stands in several blocks is told apart by a blank line."""
    if isinstance(content, list):
        return "\n\n".join(block.text for block in content)
    return content or ""
