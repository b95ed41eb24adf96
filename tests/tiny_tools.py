"""A question of the trained tiny model's own kinds that a tool answers, as its tasks have it."""

from __future__ import annotations

import json
from typing import Any

from trained_fixtures import TRAINED

_TASKS = TRAINED.parent / "tasks" / "tools.jsonl"


def _conversation() -> tuple[list[dict[str, Any]], str, str, str, str]:
    for line in _TASKS.read_text(encoding="utf-8").splitlines():
        task = json.loads(line)
        if task["id"] == "tools-1":
            system, question, called, result = task["messages"]
            (call,) = called["tool_calls"]
            arguments = json.dumps(call["function"]["arguments"])
            answer = task["reference"]["content"]
            functions = [tool["function"] for tool in system["tools"]]
            return functions, question["content"], arguments, result["content"], answer
    raise LookupError(f"{_TASKS} has no task tools-1")


FUNCTIONS, QUESTION, ARGUMENTS, RESULT, ANSWER = _conversation()
"""What is offered (`set_alarm` is to be called), asked, given to the tool, given by it, and said at
the end."""
CALLED = "set_alarm"
