"""A training document: messages, and which parts of their text are learned. Knows no token."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from lostwax.server.formats.encoding_v32 import Mode, encode_messages

Message = dict[str, Any]
Family = Callable[[Random], "Document"]

HELD_OUT_SHARE = 8  # one instance in eight is never trained on
SYSTEM_PROMPTS = ("You are a helpful assistant.", "You are a helpful AI assistant.", "Be brief.")


@dataclass(frozen=True, slots=True)
class Document:
    """A conversation in one mode. `kind` names its row in evaluation tables.

    `splits` is False where the instances are too few to hold some out (a greeting).
    """

    kind: str
    messages: tuple[Message, ...]
    mode: Mode = "chat"
    splits: bool = True

    @property
    def held_out(self) -> bool:
        """Decided by what is asked alone, so that no question is on both sides."""
        asked = "\n".join(m["content"] for m in self.messages if m["role"] == "user")
        return self.splits and zlib.crc32(asked.encode()) % HELD_OUT_SHARE == 0

    def segments(self) -> list[tuple[str, bool]]:
        """The text in pieces, each with whether the model is to write it.

        Pieces meet at special tokens, so that each may be tokenised by itself.
        """
        whole = encode_messages(self.messages, self.mode)
        last_user = max(n for n, m in enumerate(self.messages) if m["role"] == "user")
        pieces: list[tuple[str, bool]] = []
        done = 0
        for index, message in enumerate(self.messages):
            # Earlier turns of a thinking conversation have lost their reasoning: seen, not written.
            if message["role"] != "assistant" or (self.mode == "thinking" and index < last_user):
                continue
            prompt = encode_messages(self.messages[:index], self.mode)
            answer = encode_messages(self.messages[: index + 1], self.mode)
            if not (whole.startswith(answer) and answer.startswith(prompt)):
                raise ValueError(f"a later turn changes the text of messages[{index}]")
            pieces += [(whole[done : len(prompt)], False), (answer[len(prompt) :], True)]
            done = len(answer)
        return pieces


def user(content: str) -> Message:
    """What the user says."""
    return {"role": "user", "content": content}


def assistant(content: str, reasoning: str = "") -> Message:
    """What the model answers."""
    message: Message = {"role": "assistant", "content": content}
    return message | {"reasoning_content": reasoning} if reasoning else message


def with_system(rng: Random, messages: list[Message]) -> tuple[Message, ...]:
    """The messages, one time in four under one of the usual system prompts."""
    if rng.random() < 0.25:
        return ({"role": "system", "content": rng.choice(SYSTEM_PROMPTS)}, *messages)
    return tuple(messages)


def worked(rng: Random, kind: str, question: str, steps: list[str], answer: str) -> Document:
    """A question answered with worked steps: in `<think>`, or before the answer in chat mode."""
    if rng.random() < 0.5:
        turn = assistant(answer, "\n".join(steps))
        return Document(kind, with_system(rng, [user(question), turn]), "thinking")
    return Document(
        kind, with_system(rng, [user(question), assistant("\n".join([*steps, answer]))])
    )


def draw(family: Family, rng: Random, *, held_out: bool) -> Document:
    """The next document of a family on one side of the split."""
    while True:
        document = family(rng)
        if document.held_out == held_out:
            return document
