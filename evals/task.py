"""What a task is: examples to ask, how to sample, and how an answer is graded. Knows no HTTP.

A task file holds one example a line (`task_file.py` reads it): `messages`, with `thinking` if they
are asked so, or `prompt`; `completion` may hold the whole best text.

    {"id": "tools-0", "kind": "tools", "messages": [...], "thinking": true, "reference": {...}}
    {"id": "add-0", "kind": "number", "prompt": "2 + 3 =", "reference": {"value": "5"}}

Each kind has its reference, a struct beside its grader in `graders/`:

    exact, last_line    {"text": "David has $371 left."}
    number, integer     {"value": "371"}
    choice              {"letter": "B", "options": [...]}
    json                {"schema": {...}, "value": ...}
    tools               {"calls": [{"name": "add", "arguments": {...}}], "content": null}
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import msgspec

Kind = Literal["exact", "last_line", "number", "integer", "choice", "json", "tools"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Reason = Literal[
    "correct",
    "no_answer",  # nothing of the asked form stands in the text
    "cut_off",  # no or a wrong answer, in a text that ended at max_tokens
    "malformed",  # the text breaks the model's format: reasoning or calls not closed, no JSON
    "wrong_value",
    "wrong_schema",  # JSON that its schema refuses
    "wrong_call",  # another number of calls, another name
    "wrong_arguments",
]


class TaskError(ValueError):
    """A task cannot be read or run as asked; the message names the place and the remedy."""


class Chat(msgspec.Struct, frozen=True):
    """Messages as /v1/chat/completions takes them; tools stand in a message's `tools`."""

    messages: tuple[dict[str, Any], ...]
    thinking: bool = False


class Text(msgspec.Struct, frozen=True):
    """A prompt as /v1/completions takes it."""

    prompt: str


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to ask. `reference` is a struct of the kind's grader.

    `completion` is the whole text that would be best, if there is one, as the model writes it:
    reasoning, `</think>` and content, without the end-of-sentence mark. Equality with it is
    reported beside the grade.
    """

    id: str
    kind: Kind
    request: Chat | Text
    reference: Any
    completion: str | None = None


class ToolCall(msgspec.Struct, frozen=True):
    """A call as the model made it."""

    name: str
    arguments: dict[str, Any]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back, taken apart. `malformed` says how the text breaks the model's format."""

    content: str
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    malformed: str | None = None
    finish: str = "stop"
    text: str = ""

    @property
    def is_cut_off(self) -> bool:
        """Whether max_tokens ended it."""
        return self.finish == "length"


class Grade(msgspec.Struct, frozen=True):
    """Whether an answer is right, what was read as the answer, and why it is wrong.

    `vote` is what repeats count as one answer, where that is not `answer` itself.
    """

    correct: bool
    answer: str | None
    reason: Reason
    detail: str = ""
    vote: str | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a task is asked unless the caller says otherwise. `repeats` differ in their seed."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    repeats: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.temperature <= 2 and 0 < self.top_p <= 1):
            raise TaskError("temperature must lie in 0..2 and top_p in 0..1, top_p above 0")
        if not (1 <= self.repeats <= 1024 and 1 <= self.max_tokens <= 2**20):
            raise TaskError("repeats must lie in 1..1024 and max_tokens in 1..1048576")
        if self.repeats > 1 and self.temperature == 0:
            raise TaskError(
                "repeats at temperature 0 say the same; raise --temperature or give --repeats 1"
            )


def unchanged(example: Example, repeat: int, seed: int) -> Example:
    """The example itself, for tasks that ask the same in every repeat."""
    return example


@dataclass(frozen=True, slots=True)
class Task:
    """Examples under one name. `vary` gives the example as one repeat asks it."""

    name: str
    examples: tuple[Example, ...]
    sampling: Sampling
    grade: Callable[[Example, Answer], Grade]
    vary: Callable[[Example, int, int], Example] = unchanged
