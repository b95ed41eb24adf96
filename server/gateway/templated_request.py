"""A chat request to a server with a chat template, whose variables only the template knows."""

from __future__ import annotations

from typing import Any

import msgspec

from lostwax.server.gateway.chat_models import ChatRequest, TemplateKwargs
from lostwax.server.gateway.unsupported import FieldError

_SWITCHES = ("thinking", "enable_thinking", "trust_content")


class TemplatedChatRequest(ChatRequest, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A request whose chat_template_kwargs are the template's variables, beside our switches."""

    chat_template_kwargs: dict[str, Any] | None = None  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]

    @property
    def template(self) -> TemplateKwargs:
        """What there is of switches."""
        given = self.chat_template_kwargs or {}
        switches = {name: given[name] for name in _SWITCHES if given.get(name) is not None}
        for name, value in switches.items():
            if not isinstance(value, bool):
                raise FieldError(f"chat_template_kwargs.{name}", "true or false belongs here")
        return TemplateKwargs(**switches)

    def that_thinks(self) -> ChatRequest:
        """The same, of a model that reasons first."""
        template = {**(self.chat_template_kwargs or {}), "thinking": True}
        return msgspec.structs.replace(self, chat_template_kwargs=template)

    @property
    def variables(self) -> dict[str, Any]:
        """Everything that is given, by name."""
        given = self.chat_template_kwargs or {}
        others = {name: value for name, value in given.items() if name not in _SWITCHES}
        return super().variables | others
