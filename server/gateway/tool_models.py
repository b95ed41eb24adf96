"""Tools that a request offers, and which of them the model must call. Knows no encoding.

A tool's schema is data that is shown to the model: it is read as JSON, never followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from lostwax.server.formats.encoding_v32 import is_name
from lostwax.server.gateway.unsupported import FieldError, Unread, given

MAX_TOOLS = 512
MAX_TOOL_BYTES = 65536
"""Of a tool's description and schema, each."""
MAX_TOOLS_BYTES = 2**20
"""Of all tools of a request together."""
MAX_SCHEMA_DEPTH = 64
MAX_NAME_CHARS = 256

ToolName = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_CHARS)]
Description = Annotated[str, Meta(max_length=MAX_TOOL_BYTES)]
Schema = Annotated[Raw | UnsetType, Meta(extra_json_schema={"type": ["object", "null"]})]
"""The JSON schema of a tool's arguments."""
Mode = Literal["none", "auto", "required"]


class FunctionDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    """What the model is told of a function. `strict` holds the arguments to its schema."""

    name: ToolName
    description: Description | None = None
    parameters: Schema = UNSET
    strict: bool | None = None

    def __post_init__(self) -> None:
        require_tool_name(self.name)
        read_schema(self.parameters, "parameters")

    @property
    def num_bytes(self) -> int:
        """What it brings."""
        return len(self.name) + len(self.description or "") + len(given(self.parameters) or b"")

    def told(self) -> dict[str, Any]:
        """The function as a client told it, for JSON."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters if given(self.parameters) else None,
            "strict": bool(self.strict),
        }

    def rendered(self) -> dict[str, Any]:
        """The tool as encoders and readers take it, in the order of the model's own examples."""
        schema = given(self.parameters)
        fields = {
            "name": self.name,
            "description": self.description,
            "parameters": None if schema is None else msgspec.json.decode(schema),
        }
        function = {name: value for name, value in fields.items() if value is not None}
        return {"type": "function", "function": function}

    def held(self) -> dict[str, Any]:
        """The function as grammars of calls take it."""
        return {**self.rendered()["function"], "strict": bool(self.strict)}


class Tool(Struct, frozen=True, forbid_unknown_fields=True):
    """One that the client runs: there are no others here."""

    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(Struct, frozen=True, forbid_unknown_fields=True):
    """One of the tools."""

    name: ToolName


class NamedChoice(Struct, frozen=True, forbid_unknown_fields=True):
    """The tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


Choice = Mode | NamedChoice


def require_choice(choice: Choice | None, names: Sequence[str]) -> None:
    """FieldError where a choice does not go with the tools of these names."""
    if isinstance(choice, NamedChoice) and choice.function.name not in names:
        shown = choice.function.name[:64]
        raise FieldError("tool_choice", f"no tool has the name {shown!r}; name one of tools")
    if choice == "required" and not names:
        raise FieldError("tool_choice", "there is no tool to call; give tools")


def require_tools(tools: Sequence[FunctionDefinition], field: str = "tools") -> None:
    """FieldError where tools together are not what a request may bring."""
    if len(tools) > MAX_TOOLS:
        raise FieldError(
            field, f"there are {len(tools)} and at most {MAX_TOOLS} may be; send fewer"
        )
    names = set[str]()
    for tool in tools:
        if tool.name in names:
            raise FieldError(field, f"two tools have the name {tool.name[:64]!r}; rename one")
        names.add(tool.name)
    if sum(tool.num_bytes for tool in tools) > MAX_TOOLS_BYTES:
        raise FieldError(field, f"tools hold more than {MAX_TOOLS_BYTES} bytes; send fewer")


def require_tool_name(name: str) -> None:
    """FieldError where the model could not write the name in a call."""
    if not is_name(name) or name != name.strip():
        message = "no quote, line break, control character or mark of calls may be in it"
        raise FieldError("name", f"{message}, and no blank around it; rename the tool")


def read_schema(raw: Unread, field: str) -> None:
    """FieldError where a tool's schema is none of an object, too large or too deep."""
    schema = read_json(raw, field)
    if schema is not None and schema.get("type", "object") != "object":
        raise FieldError(field, "arguments are an object: its type must be 'object'")


def read_json(raw: Unread, field: str) -> dict[str, Any] | None:
    """A schema; FieldError where it is no object, too large or too deep."""
    text = given(raw)
    if text is None:
        return None
    if len(text) > MAX_TOOL_BYTES:
        raise FieldError(field, f"a schema has at most {MAX_TOOL_BYTES} bytes; shorten it")
    try:
        schema = msgspec.json.decode(text)
    except RecursionError as error:
        raise FieldError(field, f"it is deeper than {MAX_SCHEMA_DEPTH}; flatten it") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FieldError(field, f"it cannot be read as JSON: {error}") from error
    if not isinstance(schema, dict):
        raise FieldError(field, "a JSON schema belongs here, which is an object")
    if _depth_exceeds(schema, MAX_SCHEMA_DEPTH):
        raise FieldError(field, f"it is deeper than {MAX_SCHEMA_DEPTH}; flatten it")
    return cast("dict[str, Any]", schema)


def _depth_exceeds(value: Any, most: int) -> bool:
    """Whether lists and objects stand deeper in each other: level by level, in linear time."""
    level: list[Any] = [value]
    for _ in range(most + 1):
        below: list[Any] = []
        for each in level:
            below += each.values() if isinstance(each, dict) else each
        level = [each for each in below if isinstance(each, dict | list)]
        if not level:
            return False
    return True
