"""What an operator may choose of chats. Plain data: it goes to the processes that read bodies."""

from __future__ import annotations

import msgspec

from lostwax.server.formats.brought_template import ChatTemplate
from lostwax.server.formats.encoders import Format

HAS_CHAT = "has_chat"
"""The code of a refusal that no client sees: the body is to be read where chats are rendered."""


class ChatSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`template` renders chats in place of the checkpoint's encoding. Calls of tools are read as
    `calls` says, None for as the encoding writes them. Without `splits_reasoning` reasoning is
    content. Where nothing `renders`, a body with a chat is refused by the code HAS_CHAT."""

    template: ChatTemplate | None = None
    calls: Format | None = None
    splits_reasoning: bool = True
    renders: bool = True


OF_CHECKPOINT = ChatSettings()
"""All as the checkpoint's encoding has it."""
TEXTS_ALONE = ChatSettings(renders=False)
"""For a body that may be a text, and that is read where no chat may be rendered."""
