"""How chats are rendered and read: an operator's template, and the parsers that are named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lostwax.backends.runtime.artifact_reader import ArtifactReader
from lostwax.cli.decided import Decided
from lostwax.cli.foreign_values import chat_form
from lostwax.cli.option_types import OptionRefused
from lostwax.server.formats.brought_template import ChatTemplate

if TYPE_CHECKING:
    from lostwax.server.gateway.chat_settings import ChatSettings


def named_template(path: Path) -> ChatTemplate:
    """The template, compiled and tried once. OptionRefused where it does not do."""
    from lostwax.server.formats.chat_template import TemplateFault
    from lostwax.server.formats.template_apart import tried_template
    from lostwax.server.gateway.templated_chat import sampled_variables

    try:
        return tried_template(path, sampled_variables())
    except TemplateFault as error:
        raise OptionRefused(f"--chat-template {path}: {error}") from error


def chat_settings(artifact: Path, template: ChatTemplate | None, decided: Decided) -> ChatSettings:
    """What the gateway is told. OptionRefused for parsers that do not go with the artifact."""
    from lostwax.server.gateway.chat_settings import ChatSettings

    calls, splits_reasoning = chat_form(
        ArtifactReader(artifact).manifest.model.chat_encoding,
        decided.tool_call_parser,
        decided.reasoning_parser,
        has_template=template is not None,
    )
    return ChatSettings(template=template, calls=calls, splits_reasoning=splits_reasoning)
