"""Reads task files: JSON Lines with one example a line. Knows each kind's reference, no server."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from lostwax.evals.graders.by_kind import GRADERS, grade
from lostwax.evals.graders.json_value import JsonReference, require_valid
from lostwax.evals.graders.validation import Validation
from lostwax.evals.jsonl import convert, read_lines
from lostwax.evals.task import Chat, Example, Kind, Sampling, Task, TaskError, Text
from lostwax.ir.contract.foreign_file import DAMAGE, reason
from lostwax.server.formats.encoding_v32 import EncodingError, encode_pieces


class TaskLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line as it stands in the file: `messages` (with `thinking`) or `prompt`."""

    id: str
    kind: Kind
    reference: msgspec.Raw
    messages: tuple[dict[str, Any], ...] | None = None
    thinking: bool = False
    prompt: str | None = None
    completion: str | None = None


def read_task(
    path: Path, sampling: Sampling | None = None, validation: Validation | None = None
) -> Task:
    """The task of a file, named after it. Raises TaskError, whatever the file holds.

    Its answers are graded by `validation`, which tasks may share (default: one of its own).
    """
    validation = validation or Validation()
    examples: list[Example] = []
    seen: set[str] = set()
    for place, line in read_lines(path, TaskLine):
        if line.id in seen:
            raise TaskError(f"{place}: id {line.id!r} stands twice; give each example its own")
        seen.add(line.id)
        try:
            examples.append(_example(place, line, validation))
        except TaskError:
            raise
        except DAMAGE as error:
            raise TaskError(f"{place}: {reason(error)}") from error
    if not examples:
        raise TaskError(f"{path} holds no example")
    return Task(
        path.stem, tuple(examples), sampling or Sampling(), partial(grade, validation=validation)
    )


def _example(place: str, line: TaskLine, validation: Validation) -> Example:
    request = _request(place, line)
    reference = convert(
        f"{place}: reference", msgspec.json.decode(line.reference), GRADERS[line.kind].reference
    )
    if isinstance(reference, JsonReference):
        try:
            require_valid(reference, validation)
        except TaskError as error:
            raise TaskError(f"{place}: reference: {error}") from error
    if line.kind == "tools" and isinstance(request, Text):
        raise TaskError(f"{place}: kind 'tools' needs messages; their system message holds tools")
    return Example(
        id=line.id,
        kind=line.kind,
        request=request,
        reference=reference,
        completion=line.completion,
    )


def _request(place: str, line: TaskLine) -> Chat | Text:
    if (line.messages is None) == (line.prompt is None):
        raise TaskError(f"{place}: give either messages or prompt")
    if line.prompt is not None:
        if not line.prompt or line.thinking:
            raise TaskError(f"{place}: prompt is empty, or has thinking, which is for messages")
        return Text(line.prompt)
    messages = line.messages or ()
    if not messages or messages[-1].get("role") == "assistant":
        raise TaskError(f"{place}: messages must end with what the model is to answer")
    try:
        encode_pieces(messages, "thinking" if line.thinking else "chat")
    except (EncodingError, TypeError, AttributeError) as error:
        raise TaskError(f"{place}: messages: {error}") from error
    return Chat(messages, line.thinking)
