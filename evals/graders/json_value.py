"""Answers that are JSON: they parse, their schema takes them, and they are the right value."""

from __future__ import annotations

from typing import Any

import msgspec

from lostwax.evals.graders.validation import Validation, ValidationTooLong
from lostwax.evals.same_value import same_value
from lostwax.evals.task import Answer, Grade, TaskError
from lostwax.server.formats.encoding_v32 import EOS
from lostwax.server.formats.strict_json import read_json


class JsonReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A JSON Schema, and the value that is right (which `require_valid` lets the schema take)."""

    schema: dict[str, Any]
    value: Any


def require_valid(reference: JsonReference, validation: Validation) -> None:
    """Raises TaskError unless the schema is one and takes the value."""
    if not isinstance(reference.schema.get("$schema", ""), str):
        raise TaskError("the schema is no JSON Schema: its $schema is no text")
    try:
        fault = validation.fault(reference.schema, reference.value)
    except ValidationTooLong as error:
        raise TaskError(f"the reference value's {error}; simplify its schema") from error
    if fault is not None:
        raise TaskError(f"the reference value is not what its schema asks for: {fault}")


def grade_json(reference: JsonReference, answer: Answer, validation: Validation) -> Grade:
    """Right where the whole content is JSON, valid and equal to the value; key order is free."""
    text = answer.content.removesuffix(EOS).strip()
    if not text:
        return Grade(False, None, "cut_off" if answer.is_cut_off else "no_answer")
    try:
        value = read_json(text)
    except ValueError as error:
        return Grade(False, text, "cut_off" if answer.is_cut_off else "malformed", str(error))
    try:
        fault = validation.fault(reference.schema, value)
    except ValidationTooLong as error:
        return Grade(False, text, "wrong_schema", f"the answer's {error}")
    except TaskError as error:
        # It took the right value: only of a wrong one can it be that a schema cannot be applied.
        return Grade(False, text, "wrong_schema", str(error))
    if fault is not None:
        return Grade(False, text, "wrong_schema", fault)
    if same_value(value, reference.value):
        return Grade(True, text, "correct")
    return Grade(False, text, "wrong_value")
