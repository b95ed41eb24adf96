"""The format that a client wants its answer in, as OpenAI, vLLM and SGLang spell it, as one
grammar. Knows no request and no engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from lostwax.server.gateway.unsupported import FieldError, Unread, given, only, require_neutral
from lostwax.server.grammar.grammar import MAX_BYTES, Grammar

MAX_CHOICES_OF_TEXT = 1024
"""Texts of which an answer is to be one."""
_BLANKS = "blanks between JSON's values are bounded here"
_HOLDS = "a schema is held as it stands: say additionalProperties in it"
_NO_SCHEMA = "a JSON schema belongs here, which is an object; {} holds any JSON"
_ONE = "there is one way here, which bounds time and memory"

Text = Annotated[str, Meta(min_length=1, max_length=MAX_BYTES)]
Texts = Annotated[list[Text], Meta(min_length=1, max_length=MAX_CHOICES_OF_TEXT)]
Schema = Annotated[Raw, Meta(extra_json_schema={"type": "object"})]
JsonOrText = Annotated[Unread, Meta(extra_json_schema={"type": ["object", "string", "null"]})]
"""A JSON schema as it is, or its JSON as text."""
GuidedBackend = Annotated[Unread, only("auto", "guidance", "llguidance", remedy=_ONE)]
WhitespacePattern = Annotated[Unread, only(remedy=_BLANKS)]


class TextFormat(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="text"):
    """Any text: no grammar."""


class JsonObjectFormat(
    Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="json_object"
):
    """Some JSON object."""


class NamedSchema(Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON schema. It is held whether `strict` or not; `name` and `description` are for the
    client."""

    schema: Schema
    name: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    description: Annotated[str, Meta(max_length=MAX_BYTES)] | None = None
    strict: bool | None = None

    def __post_init__(self) -> None:
        if not bytes(self.schema).startswith(b"{"):
            raise FieldError("schema", _NO_SCHEMA)


class JsonSchemaFormat(
    Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="json_schema"
):
    """JSON as a schema says."""

    json_schema: NamedSchema


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class StructuredOutputs(Struct, frozen=True, forbid_unknown_fields=True):
    """vLLM's form of all of it."""

    json: JsonOrText = UNSET
    regex: Text | None = None
    choice: Texts | None = None
    grammar: Text | None = None
    json_object: bool | None = None
    structural_tag: Annotated[
        Unread, only(remedy="describe the tags in a grammar, or give tools and tool_choice")
    ] = UNSET
    disable_fallback: Annotated[Unread, only(True, False, remedy=_ONE)] = UNSET
    disable_any_whitespace: Annotated[Unread, only(False, remedy=_BLANKS)] = UNSET
    disable_additional_properties: Annotated[Unread, only(False, remedy=_HOLDS)] = UNSET
    whitespace_pattern: WhitespacePattern = UNSET

    def __post_init__(self) -> None:
        require_neutral(self)


class Asked(NamedTuple):
    """A grammar, and the parameter that brought it."""

    grammar: Grammar
    param: str


class FormatFields(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The parameters of a request that say how its answer is to look: at most one does."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: JsonOrText = UNSET
    guided_regex: Text | None = None
    guided_choice: Texts | None = None
    guided_grammar: Text | None = None
    guided_decoding_backend: GuidedBackend = UNSET
    guided_whitespace_pattern: WhitespacePattern = UNSET
    json_schema: JsonOrText = UNSET
    regex: Text | None = None
    ebnf: Text | None = None

    @property
    def format(self) -> Asked | None:
        """What is asked for. FieldError where it is asked for in two ways."""
        asked = list(self._asked())
        for other in asked[1:]:
            if other.grammar != asked[0].grammar:
                raise FieldError(
                    other.param.split(".")[0],
                    f"{asked[0].param} says what the answer is to be, and otherwise; give one",
                )
        return asked[0] if asked else None

    def _asked(self) -> Iterator[Asked]:
        form = self.response_format
        schema = form.json_schema.schema if isinstance(form, JsonSchemaFormat) else None
        path = "response_format.json_schema.schema"
        yield from asked_of(form, "response_format", schema, path)
        many = self.structured_outputs
        if many is not None:
            yield from _of_schema("structured_outputs.json", many.json)
            yield from _of_text("structured_outputs.regex", many.regex)
            yield from _of_choice("structured_outputs.choice", many.choice)
            yield from _of_grammar("structured_outputs.grammar", many.grammar)
            if many.json_object:
                yield Asked(Grammar("json_object"), "structured_outputs.json_object")
        yield from _of_schema("guided_json", self.guided_json)
        yield from _of_text("guided_regex", self.guided_regex)
        yield from _of_choice("guided_choice", self.guided_choice)
        yield from _of_grammar("guided_grammar", self.guided_grammar)
        yield from _of_schema("json_schema", self.json_schema)
        yield from _of_text("regex", self.regex)
        if self.ebnf is not None:
            yield Asked(Grammar("ebnf", self.ebnf), "ebnf")


def asked_of(form: Struct | None, param: str, schema: Raw | None, path: str) -> Iterator[Asked]:
    """What a form that stands at `param` asks; its schema, if it has one, stands at `path`."""
    if schema is not None:
        yield Asked(Grammar("json_schema", bytes(schema).decode()), path)
    elif isinstance(form, JsonObjectFormat):
        yield Asked(Grammar("json_object"), param)


def _of_schema(param: str, raw: Raw | UnsetType) -> Iterator[Asked]:
    text = given(raw)
    if text is None:
        return
    if text[:1] not in (b'"', b"{"):
        raise FieldError(param, "a JSON schema belongs here, as it is or as text")
    schema: Any = msgspec.json.decode(text, type=str) if text[:1] == b'"' else text.decode()
    if not schema.lstrip(" \t\r\n").startswith("{"):
        raise FieldError(param, _NO_SCHEMA)
    yield Asked(Grammar("json_schema", schema), param)


def formats_of(request: FormatFields) -> dict[str, Any]:
    """What a request says of how its answer is to look, for another to say so."""
    return {name: getattr(request, name) for name in FormatFields.__struct_fields__}


def _of_text(param: str, text: str | None) -> Iterator[Asked]:
    if text is not None:
        yield Asked(Grammar("regex", text), param)


def _of_choice(param: str, texts: list[str] | None) -> Iterator[Asked]:
    if texts is not None:
        yield Asked(Grammar("choice", msgspec.json.encode(texts).decode()), param)


def _of_grammar(param: str, text: str | None) -> Iterator[Asked]:
    """vLLM takes two forms under one name: rules of EBNF are written with `::=`."""
    if text is not None:
        yield Asked(Grammar("ebnf" if "::=" in text else "lark", text), param)
