"""Says which chat encoding a checkpoint was trained on. Renders nothing, reads no token.

V3.2 and its Speciale ship without a chat template: theirs is the encoder that the server holds. A
checkpoint with a template (V3.2-Exp) was trained on what that template renders.
"""

from __future__ import annotations

from pathlib import Path

from lostwax.frontend.json_file import read_json_object
from lostwax.ir.contract.model import CHAT_V32

TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_CONFIG = "tokenizer_config.json"
MAX_CONFIG_BYTES = 1 << 22  # with a template inside and 818 added tokens it has 0.2 MB


def read_chat_encoding(folder: Path) -> str | None:
    """The encoding's id, None where the folder holds a template; ConfigError if it is damaged."""
    if (folder / TEMPLATE_FILE).exists():
        return None
    path = folder / TOKENIZER_CONFIG
    if not path.is_file():
        return CHAT_V32
    raw = read_json_object(path, MAX_CONFIG_BYTES)
    return None if raw.get("chat_template") else CHAT_V32
