"""A conversation told item by item, as the messages of a chat. Knows no interface's items.

Other interfaces than chats tell reasoning, texts, calls and results one by one, and results by the
ids of their calls; the encoding has one turn with all of them, and results in the calls' order.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

from msgspec import Raw

from lostwax.server.gateway.chat_models import MAX_CALLS, Function, Message, Role, ToolCall
from lostwax.server.gateway.errors import ApiError
from lostwax.server.gateway.unanswered_calls import without_broken
from lostwax.server.gateway.unsupported import FieldError


class History:
    """The messages so far. FieldError at `field` where items do not follow each other.

    `place` is where the items that are told now stand in the request; `places` has it for each
    message, of several the first.
    """

    def __init__(self, field: str) -> None:
        self.place = field
        self.places: list[str] = []
        self._field = field
        self._messages: list[Message] = []
        self._reasoning: list[str] = []
        self._texts: list[str] = []
        self._calls: list[ToolCall] = []
        self._results: dict[str, tuple[str, str]] = {}
        """Where each stands, and its text."""
        self._turn_place = field
        self._is_open = False

    def add(self, role: Role, text: str) -> None:
        """A message that is not the assistant's."""
        self._end_turn()
        self._put(self.place, Message(role=role, content=text))

    def think(self, text: str) -> None:
        """Reasoning of the assistant's turn."""
        self._go_on()
        self._reasoning.append(text)

    def say(self, text: str) -> None:
        """Content of the assistant's turn."""
        self._go_on()
        self._texts.append(text)

    def call(self, call_id: str, name: str, arguments: Raw) -> None:
        """A call of the assistant's turn; `arguments` is a JSON object, or text that holds one."""
        self._go_on()
        if any(call.id == call_id for call in self._calls):
            raise FieldError(self._field, f"two calls have the id {call_id[:64]!r}")
        if len(self._calls) == MAX_CALLS:
            raise FieldError(self._field, f"a turn has more than {MAX_CALLS} calls")
        self._calls.append(ToolCall(function=Function(name=name, arguments=arguments), id=call_id))

    def answer(self, call_id: str, text: str) -> None:
        """The result of a call of the turn before."""
        if not any(call.id == call_id for call in self._calls):
            raise FieldError(
                self._field, f"a result is of call {call_id[:64]!r}, which is not right before it"
            )
        if call_id in self._results:
            raise FieldError(self._field, f"two results are of call {call_id[:64]!r}")
        self._results[call_id] = (self.place, text)

    def messages(self) -> list[Message]:
        """All of them."""
        self._end_turn()
        return self._messages

    def _go_on(self) -> None:
        if self._results:
            self._end_turn()
        if not self._is_open:
            self._turn_place = self.place
        self._is_open = True

    def _put(self, place: str, message: Message) -> None:
        self.places.append(place)
        self._messages.append(message)

    def _end_turn(self) -> None:
        if not self._is_open:
            return
        turn = Message(
            role="assistant",
            content="".join(self._texts),
            reasoning_content="".join(self._reasoning) or None,
            tool_calls=self._calls or None,
        )
        self._put(self._turn_place, turn)
        if self._results:
            for call in without_broken(turn, self._results.keys()).tool_calls or ():
                if call.id not in self._results:
                    raise FieldError(
                        self._field, f"call {str(call.id)[:64]!r} has no result; add it"
                    )
                place, text = self._results[call.id]
                self._put(place, Message(role="tool", content=text, tool_call_id=call.id))
        self._reasoning, self._texts, self._calls = [], [], []
        self._results, self._is_open = {}, False


@contextmanager
def named(names: Mapping[str, str | None], history: History | None = None) -> Generator[None]:
    """Errors of a chat by the names that its fields have in another interface, None where it has
    none, and of a message by where its items stand."""
    try:
        yield
    except FieldError as error:
        name = names.get(error.field) or error.field
        raise ApiError(400, f"{name!r}: {error}", code="invalid_value", param=name) from error
    except ApiError as error:
        error.rename(names)
        if history is not None:
            error.locate(history.places)
        raise
