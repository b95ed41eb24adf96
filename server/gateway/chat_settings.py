"""What an operator may choose of chats. Plain data: it goes to the processes that read bodies."""

from __future__ import annotations

import msgspec

from lostwax.server.formats.brought_template import ChatTemplate
from lostwax.server.formats.encoders import Format


class ChatSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`template` renders chats in place of the checkpoint's encoding. Calls of tools are read as
    `calls` says, None for as the encoding writes them. Without `splits_reasoning` reasoning is
    content."""

    template: ChatTemplate | None = None
    calls: Format | None = None
    splits_reasoning: bool = True


OF_CHECKPOINT = ChatSettings()
"""All as the checkpoint's encoding has it."""
