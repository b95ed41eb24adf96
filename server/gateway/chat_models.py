"""The request schema of `/v1/chat/completions`, with a bound on every number. Knows no encoding.

What is not served yet is refused by name with what to do instead; values that ask for nothing are
accepted, because clients send them by default.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from lostwax.server.gateway.models import (
    MAX_LOGPROBS,
    MAX_TOKEN_ID,
    STRICT,
    GenerationRequest,
    drop_nulls,
)

MAX_MESSAGES = 2048
MAX_PARTS = 256
MAX_CALLS = 128
MAX_NAME_CHARS = 256

Role = Literal["system", "developer", "user", "assistant", "tool"]

_OF_ROLE = {
    "assistant": {"reasoning_content", "reasoning", "tool_calls"},
    "tool": {"tool_call_id"},
}
"""What a message may hold beside its role and content."""

_RENDER = "render the tools into a prompt (encoding_v32.py) and send that to /v1/completions"
_FORMAT = "ask for the format in a message and check the answer"
_THINKING = 'use chat_template_kwargs: {"thinking": true}'
_REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "tools": (([],), _RENDER),
    "tool_choice": (("none", "auto"), _RENDER),
    "parallel_tool_calls": ((True, False), _RENDER),
    "functions": (([],), _RENDER),
    "function_call": (("none", "auto"), _RENDER),
    "response_format": (({"type": "text"},), _FORMAT),
    "modalities": ((["text"],), "this model reads and writes text only"),
    "audio": ((), "this model reads and writes text only"),
    "reasoning_effort": ((), _THINKING),
    "enable_thinking": ((), _THINKING),
}
"""Parameters that are not served, the values that ask for nothing, and the remedy."""


class TextPart(BaseModel):
    """A piece of content; there is no other kind that the model reads."""

    model_config = STRICT
    type: Literal["text"]
    text: str


class Function(BaseModel):
    """What an assistant called. `arguments` is a JSON object, as text or as it is."""

    model_config = STRICT
    name: str = Field(min_length=1, max_length=MAX_NAME_CHARS)
    arguments: str | dict[str, Any] = "{}"


class ToolCall(BaseModel):
    """One call of an assistant's turn."""

    model_config = STRICT
    id: str | None = Field(None, max_length=MAX_NAME_CHARS)
    type: Literal["function"] = "function"
    function: Function


class Message(BaseModel):
    """A turn of the chat. `reasoning` is another name of `reasoning_content`."""

    model_config = STRICT
    role: Role
    content: str | list[TextPart] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = Field(None, max_length=MAX_CALLS)
    tool_call_id: str | None = Field(None, max_length=MAX_NAME_CHARS)

    @model_validator(mode="before")
    @classmethod
    def _nulls_mean_defaults(cls, data: Any) -> Any:
        return drop_nulls(data)

    @field_validator("content")
    @classmethod
    def _few_parts(cls, value: str | list[TextPart] | None) -> str | list[TextPart] | None:
        if isinstance(value, list) and len(value) > MAX_PARTS:
            raise ValueError(f"at most {MAX_PARTS} parts a message")
        return value

    @model_validator(mode="after")
    def _fits_role(self) -> Message:
        strange = self.model_fields_set - {"role", "content"} - _OF_ROLE.get(self.role, set())
        if strange:
            raise ValueError(f"a {self.role} message has no {min(strange)}; remove it")
        return self

    def rendered(self) -> dict[str, Any]:
        """The message as the encoder reads it."""
        fields = self.model_dump(exclude_none=True, exclude={"reasoning"})
        if self.reasoning and not self.reasoning_content:
            fields["reasoning_content"] = self.reasoning
        return fields


class TemplateKwargs(BaseModel):
    """What the chat encoding can be told.

    `trust_content` makes marks and tags in the messages structure, as the model's own encoder does.
    """

    model_config = STRICT
    thinking: bool = False
    trust_content: bool = False


class ChatRequest(GenerationRequest):
    """A request of `/v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKEN_ID)
    max_completion_tokens: int | None = Field(None, ge=1, le=MAX_TOKEN_ID)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MAX_LOGPROBS)
    chat_template_kwargs: TemplateKwargs = TemplateKwargs()
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: Any = None
    functions: Any = None
    function_call: Any = None
    response_format: Any = None
    modalities: Any = None
    audio: Any = None
    reasoning_effort: Any = None
    enable_thinking: Any = None

    @field_validator(*_REFUSED)
    @classmethod
    def _not_served(cls, value: Any, info: Any) -> Any:
        neutral, remedy = _REFUSED[info.field_name]
        if value not in neutral:
            raise ValueError(f"chats do not take it yet; {remedy}")
        return value

    @model_validator(mode="after")
    def _one_bound(self) -> ChatRequest:
        if None not in (self.max_tokens, self.max_completion_tokens):
            raise ValueError("give max_tokens or max_completion_tokens, not both")
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs=true")
        return self

    @property
    def most_tokens(self) -> int | None:
        """Tokens of the answer at most; None for what the context leaves."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def thinking(self) -> bool:
        """Whether the model reasons before it answers."""
        return self.chat_template_kwargs.thinking
