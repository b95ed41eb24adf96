"""Answers that are JSON: they parse, their schema takes them, and they are the right value."""

from __future__ import annotations

from typing import Any

import msgspec
from jsonschema.exceptions import SchemaError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from lostwax.evals.same_value import same_value
from lostwax.evals.task import Answer, Grade, TaskError
from lostwax.server.gateway.encoding_v32 import EOS
from lostwax.server.gateway.strict_json import read_json


class JsonReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON Schema, and the value that is right (which the schema takes)."""

    schema: dict[str, Any]
    value: Any

    def __post_init__(self) -> None:
        if fault := _fault(_validator(self.schema), self.value):
            raise TaskError(f"the reference value is not what its schema asks for: {fault}")


def grade_json(reference: JsonReference, answer: Answer) -> Grade:
    """Right where the whole content is JSON, valid and equal to the value; key order is free."""
    text = answer.content.removesuffix(EOS).strip()
    if not text:
        return Grade(False, None, "cut_off" if answer.is_cut_off else "no_answer")
    try:
        value = read_json(text)
    except ValueError as error:
        return Grade(False, text, "cut_off" if answer.is_cut_off else "malformed", str(error))
    if fault := _fault(_validator(reference.schema), value):
        return Grade(False, text, "wrong_schema", fault)
    if same_value(value, reference.value):
        return Grade(True, text, "correct")
    return Grade(False, text, "wrong_value")


def _validator(schema: dict[str, Any]) -> Validator:
    if not isinstance(schema.get("$schema", ""), str):
        raise TaskError("the schema is no JSON Schema: its $schema is no text")
    made = validator_for(schema)
    try:
        made.check_schema(schema)
    except SchemaError as error:
        raise TaskError(f"the schema is no JSON Schema: {error.message}") from error
    return made(schema, registry=Registry())  # an empty registry: a $ref reaches no network


def _fault(validator: Validator, value: Any) -> str | None:
    """The first thing that a schema says against a value."""
    try:
        for error in validator.iter_errors(value):
            return f"{error.json_path}: {error.message}"[:200]
    except OverflowError as error:  # multipleOf divides integers of any size as floats
        return f"a number cannot be looked at: {error}"
    except Unresolvable as error:
        raise TaskError(f"the schema refers to what it does not hold: {error.ref}") from error
    except RecursionError:
        return "nested too deeply to be looked at"
    return None
