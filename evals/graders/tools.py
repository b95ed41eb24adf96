"""Answers that call tools: the right calls in their order, names and arguments exactly."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from lostwax.evals.same_value import same_value
from lostwax.evals.task import Answer, Grade


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A call that is right."""

    name: str
    arguments: dict[str, Any] = {}


class ToolsReference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The calls that are right; none for a refusal or an answer. `content` is compared if given."""

    calls: tuple[Call, ...] = ()
    content: str | None = None


def grade_tools(reference: ToolsReference, answer: Answer) -> Grade:
    """Right where the calls are the reference's, and the content too where it says one."""
    shown = json.dumps(msgspec.to_builtins(answer.calls), ensure_ascii=False)
    shown = shown if answer.calls else answer.content.strip()
    if not answer.calls and not answer.content.strip():
        return Grade(False, None, "cut_off" if answer.is_cut_off else "no_answer")
    names = [call.name for call in answer.calls]
    expected = [call.name for call in reference.calls]
    if names != expected:
        return Grade(False, shown, "wrong_call", f"called {names}, expected {expected}")
    for call, right in zip(answer.calls, reference.calls, strict=True):
        if not same_value(call.arguments, right.arguments):
            wanted = json.dumps(right.arguments, ensure_ascii=False)
            return Grade(False, shown, "wrong_arguments", f"{call.name} expects {wanted}")
    if reference.content is not None and answer.content.strip() != reference.content.strip():
        return Grade(False, shown, "cut_off" if answer.is_cut_off else "wrong_value")
    return Grade(True, shown, "correct")
