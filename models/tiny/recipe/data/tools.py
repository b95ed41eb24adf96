"""Conversations with tools in DSML: one call, two calls, using results, and refusing."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from recipe.data.document import Document, Message, assistant, user
from recipe.data.tool_pool import TOOLS, Param, Tool

NO_TOOL = "There is none."


class Offered:
    """A tool as one document offers it: chosen names, in a chosen order."""

    def __init__(self, rng: Random, tool: Tool) -> None:
        self.tool = tool
        self.name = rng.choice(tool.names)
        self.params: list[tuple[Param, str]] = []
        for param in tool.params:
            taken = {name for _, name in self.params}
            self.params.append((param, rng.choice([n for n in param.names if n not in taken])))

    def schema(self) -> dict[str, Any]:
        """The function object."""
        properties: dict[str, Any] = {}
        for param, name in self.params:
            items = {"items": {"type": "integer"}} if param.kind == "array" else {}
            properties[name] = {"type": param.kind, **items}
        inner = {"type": "object", "properties": properties, "required": list(properties)}
        description = f"Use this to {self.tool.does}."
        return {"name": self.name, "description": description, "parameters": inner}

    def values(self, rng: Random) -> dict[str, Any]:
        """Values by the keys that templates use."""
        values = {param.key: param.value(rng) for param, _ in self.params}
        if values.get("start") == values.get("end") and "start" in values:
            return self.values(rng)
        return values

    def call(self, values: dict[str, Any]) -> Message:
        """The tool call with these values, in the order of the schema."""
        arguments = {name: values[param.key] for param, name in self.params}
        return {"type": "function", "function": {"name": self.name, "arguments": arguments}}


def tools(rng: Random) -> Document:
    """One conversation in a system message with one to five tools."""
    offered = [Offered(rng, tool) for tool in rng.sample(TOOLS, rng.randint(1, 5))]
    system = {"role": "system", "content": rng.choice(("", "", "You are a helpful assistant.")),
              "tools": [{"type": "function", "function": o.schema()} for o in offered]}  # fmt: skip
    thinks = rng.random() < 0.5
    shape = rng.random()
    if shape < 0.3:
        absent = rng.choice([t for t in TOOLS if all(t is not o.tool for o in offered)])
        other = Offered(rng, absent)
        question = _question(rng, other.tool, other.values(rng))
        reason = f"{_looked_at(offered, [absent])}\nNo tool fits." if thinks else ""
        turns = [user(question), assistant(f"{_look([absent])} {NO_TOOL}", reason)]
        return Document("tool-refuse", (system, *turns), "thinking" if thinks else "chat")
    used = rng.sample(offered, 2) if shape > 0.85 and len(offered) > 1 else [rng.choice(offered)]
    kind = "tool-two" if len(used) == 2 else "tool-call"
    turns = _round(rng, offered, used, thinks)
    if shape > 0.45:
        return Document(kind.replace("call", "use"), (system, *turns), _mode(thinks))
    return Document(kind, (system, *turns[:2]), _mode(thinks))


def _mode(thinks: bool) -> Any:
    return "thinking" if thinks else "chat"


def _look(wanted: list[Tool]) -> str:
    """What the answer begins with. Naming the wish first makes it easy to see that no tool fits."""
    return f"I look for a tool to {' and to '.join(tool.does for tool in wanted)}."


def _looked_at(offered: list[Offered], wanted: list[Tool]) -> str:
    """Every offered tool, one by one, compared with the wish."""
    wants = " and to ".join(tool.does for tool in wanted)
    lines = [f"{o.name}: {o.tool.does}, {'yes' if o.tool in wanted else 'no'}." for o in offered]
    return "\n".join([f"The user wants to {wants}.", *lines])


def _round(rng: Random, offered: list[Offered], used: list[Offered], thinks: bool) -> list[Message]:
    """Question, calls, results, answer."""
    values = [o.values(rng) for o in used]
    asked = [_question(rng, o.tool, v) for o, v in zip(used, values, strict=True)]
    wanted = [o.tool for o in used]
    names = " and ".join(o.name for o in used)
    reason = f"{_looked_at(offered, wanted)}\nI call {names}." if thinks else ""
    call = assistant(_look(wanted), reason)
    call["tool_calls"] = [o.call(v) for o, v in zip(used, values, strict=True)]
    results, answers = list[Message](), list[str]()
    for o, value in zip(used, values, strict=True):
        result = {key: make(rng) for key, make in o.tool.result.items()}
        results.append({"role": "tool", "content": json.dumps(result)})
        answers.append(o.tool.answer.format(**_shown(value), **result))
    end = assistant(" ".join(answers), "I have the result." if thinks else "")
    return [user(" ".join(asked)), call, *results, end]


def _question(rng: Random, tool: Tool, values: dict[str, Any]) -> str:
    return rng.choice(tool.ask).format(**_shown(values))


def _shown(values: dict[str, Any]) -> dict[str, Any]:
    """Values as a user writes them."""
    shown = dict(values)
    if "list" in shown:
        shown["list"] = ", ".join(map(str, shown["list"]))
    if "on" in shown:
        shown["onoff"] = "on" if shown["on"] else "off"
    return shown
