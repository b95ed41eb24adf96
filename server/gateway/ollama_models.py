"""The request schema of Ollama's `/api/chat`, with a bound on every number. Knows no encoding."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from lostwax.server.gateway.chat_models import MAX_CALLS, MAX_MESSAGES, Name
from lostwax.server.gateway.models import (
    MAX_SEED,
    MAX_STOPS,
    MAX_TOKEN_ID,
    MIN_SEED,
    Hint,
    Penalty,
    Stop,
)
from lostwax.server.gateway.tool_models import (
    MAX_TOOLS,
    FunctionDefinition,
    ToolName,
    require_tools,
)
from lostwax.server.gateway.unsupported import FieldError, Unread, given, only, require_neutral

_TEXT_ONLY = "this model reads and writes text only"
_AT_START = "how the model lies in memory is said to lostwax compile and serve"
_SAMPLING = "temperature, top_k, top_p, min_p and seed steer the sampling"
_WHOLE = "a repetition counts wherever it stands in the prompt or the answer"
_CUT = "nothing is cut: leave out old messages yourself"
_CHATS = "/v1/chat/completions has them"
_ENCODER = "the model's own encoder renders chats"
_FORMAT = {"anyOf": [{"enum": ["", "json", None]}, {"type": "object"}]}


class CalledFunction(Struct, frozen=True, forbid_unknown_fields=True):
    """What an assistant called. `index`, as answers have it, is not read: order counts."""

    name: ToolName
    arguments: Annotated[Raw | UnsetType, Meta(extra_json_schema={"type": "object"})] = UNSET
    index: Annotated[int, Meta(ge=0, le=MAX_CALLS)] | None = None
    description: str | None = None

    def __post_init__(self) -> None:
        if self.arguments is not UNSET and bytes(self.arguments)[:1] != b"{":
            raise FieldError("arguments", "an object belongs here")


class OllamaCall(Struct, frozen=True, forbid_unknown_fields=True):
    """A call that the assistant made."""

    function: CalledFunction
    id: Name | None = None
    type: Literal["function"] | None = None


class OllamaMessage(Struct, frozen=True, forbid_unknown_fields=True):
    """A turn of the chat. A tool's result says by `tool_name` or `tool_call_id` which call it is
    of; where it says neither it is of the first call without one."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    tool_calls: Annotated[list[OllamaCall], Meta(max_length=MAX_CALLS)] | None = None
    tool_name: Name | None = None
    tool_call_id: Name | None = None
    images: Annotated[Unread, only([], remedy=_TEXT_ONLY)] = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)
        own = {"assistant": ("thinking", "tool_calls"), "tool": ("tool_name", "tool_call_id")}
        for role, fields in own.items():
            for field in fields:
                if self.role != role and getattr(self, field):
                    raise FieldError(field, f"a {self.role} message has no {field}; remove it")


class OllamaTool(Struct, frozen=True, forbid_unknown_fields=True):
    """A tool that the client runs."""

    function: FunctionDefinition
    type: Literal["function"] | None = None


class OllamaOptions(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How the answer is sampled and ended, by Ollama's names. `num_ctx` asks for room that is there
    anyway, up to the model's context; `num_predict` below 1 for what the context leaves."""

    num_ctx: Annotated[int, Meta(ge=1, le=MAX_TOKEN_ID)] | None = None
    num_predict: Annotated[int, Meta(ge=-2, le=MAX_TOKEN_ID)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=MAX_TOKEN_ID)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: (
        Annotated[
            int,
            Meta(
                ge=MIN_SEED,
                le=MAX_SEED,
                extra_json_schema={"minimum": MIN_SEED, "maximum": MAX_SEED},
            ),
        ]
        | None
    ) = None
    stop: Stop | Annotated[list[Stop], Meta(max_length=MAX_STOPS)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repeat_penalty: Annotated[float, Meta(ge=0.01, le=2)] | None = None
    repeat_last_n: Annotated[Unread, only(-1, remedy=_WHOLE)] = UNSET
    num_keep: Annotated[Unread, only(remedy=_CUT)] = UNSET
    tfs_z: Annotated[Unread, only(1, remedy=_SAMPLING)] = UNSET
    typical_p: Annotated[Unread, only(1, remedy=_SAMPLING)] = UNSET
    mirostat: Annotated[Unread, only(0, remedy=_SAMPLING)] = UNSET
    mirostat_tau: Annotated[Unread, only(remedy=_SAMPLING)] = UNSET
    mirostat_eta: Annotated[Unread, only(remedy=_SAMPLING)] = UNSET
    penalize_newline: Annotated[Unread, only(True, remedy="logit_bias of chats raises it")] = UNSET
    numa: Annotated[Unread, only(False, remedy=_AT_START)] = UNSET
    num_batch: Annotated[Unread, only(remedy=_AT_START)] = UNSET
    num_gpu: Annotated[Unread, only(remedy=_AT_START)] = UNSET
    main_gpu: Annotated[Unread, only(remedy=_AT_START)] = UNSET
    num_thread: Annotated[Unread, only(remedy=_AT_START)] = UNSET
    low_vram: Annotated[Unread, only(False, remedy=_AT_START)] = UNSET
    f16_kv: Annotated[Unread, only(remedy=_AT_START)] = UNSET
    use_mmap: Annotated[Unread, only(remedy=_AT_START)] = UNSET
    use_mlock: Annotated[Unread, only(False, remedy=_AT_START)] = UNSET
    vocab_only: Annotated[Unread, only(False, remedy=_AT_START)] = UNSET
    logits_all: Annotated[Unread, only(False, remedy=_CHATS)] = UNSET
    embedding_only: Annotated[Unread, only(False, remedy="this model gives none")] = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)

    @property
    def most_tokens(self) -> int | None:
        """Tokens of the answer at most; None for what the context leaves."""
        return None if self.num_predict is None or self.num_predict < 1 else self.num_predict


class OllamaRequest(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A request of `/api/chat`, which streams unless `stream` is false. An assistant's message at
    the end is gone on with. `keep_alive` is a hint: the model stays loaded."""

    REMEDIES: ClassVar = {
        "messages[].role": "use system, user, assistant or tool",
        "think": "use true, false, low, medium or high",
    }

    model: Hint | None = None
    messages: Annotated[list[OllamaMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    tools: Annotated[list[OllamaTool], Meta(max_length=MAX_TOOLS)] | None = None
    stream: bool | None = None
    think: bool | Literal["low", "medium", "high"] | None = None
    format: Annotated[Raw | UnsetType, Meta(extra_json_schema=_FORMAT)] = UNSET
    options: OllamaOptions | None = None
    keep_alive: Hint | Annotated[float, Meta(ge=-(2**53), le=2**53)] | None = None
    logprobs: Annotated[Unread, only(False, remedy=_CHATS)] = UNSET
    top_logprobs: Annotated[Unread, only(0, remedy=_CHATS)] = UNSET
    truncate: Annotated[Unread, only(False, remedy=_CUT)] = UNSET
    shift: Annotated[Unread, only(False, remedy=_CUT)] = UNSET
    template: Annotated[Unread, only("", remedy=_ENCODER)] = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)
        require_tools([tool.function for tool in self.tools or ()])
        if self.form not in (None, b'""', b'"json"') and not self.form.startswith(b"{"):
            raise FieldError("format", '"json" or a JSON schema belongs here')

    @property
    def form(self) -> bytes | None:
        """The JSON of the format."""
        return given(self.format)

    @property
    def streams(self) -> bool:
        """Whether the answer comes in parts."""
        return self.stream is not False
